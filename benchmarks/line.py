"""A long line on this machine: two network namespaces, and a delay between them.

Each namespace ends in a TUN device; a thread of this process carries every packet from one
to the other, half a round trip later. So TCP and TLS pay on it what they pay on a real line.
It needs Linux, root, iproute2 and /dev/net/tun, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TUN = Path("/dev/net/tun")
# From linux/if_tun.h, which Python has no names for.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# RFC 2544 sets these aside for benchmarks.
NEAR_ADDRESS, FAR_ADDRESS = "198.18.0.1", "198.18.0.2"
MTU = 1500
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Line:
    """The two ends of a line: what to put before a command to run it there."""

    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    far_address: str = "127.0.0.1"
    round_trip: float = 0.0


@cache
def missing() -> str | None:
    """What this machine lacks for a long line, or None; one is made to see."""
    if os.name != "posix" or os.geteuid() != 0:
        return "root"
    if shutil.which("ip") is None:
        return "iproute2"
    if not TUN.exists():
        return str(TUN)
    try:
        with open_line(LOOK_SECONDS):
            return None
    except (OSError, subprocess.CalledProcessError):
        return "the right to make network namespaces"


@contextmanager
def open_line(round_trip: float) -> Iterator[Line]:
    """A line of ``round_trip`` seconds while entered; 0 is loopback, for which nothing is needed.

    Raises:
        OSError: the machine cannot have one; ``missing()`` tells why, where it knows.
        subprocess.CalledProcessError: ``ip`` failed.
    """
    if not round_trip:
        yield Line()
        return
    near, far = f"bench-near-{os.getpid()}", f"bench-far-{os.getpid()}"
    with ExitStack() as stack:
        devices = (
            stack.enter_context(_end(near, NEAR_ADDRESS)),
            stack.enter_context(_end(far, FAR_ADDRESS)),
        )
        stack.enter_context(_carried(devices, round_trip / 2))
        yield Line(_inside(near), _inside(far), FAR_ADDRESS, round_trip)


def _inside(namespace: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S603, S607  (ours, of the PATH)


@contextmanager
def _end(namespace: str, address: str) -> Iterator[int]:
    """The descriptor of the only device that leads out of ``namespace``."""
    _ip("netns", "add", namespace)
    try:
        device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        try:
            asked = struct.pack("16sH14x", b"bench%d", IFF_TUN | IFF_NO_PI)
            name = fcntl.ioctl(device, TUNSETIFF, asked)[:16].rstrip(b"\0").decode()
            _ip("link", "set", name, "netns", namespace)
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", name)
            for one in ("lo", name):
                _ip("-n", namespace, "link", "set", one, "up")
            yield device
        finally:
            os.close(device)
    finally:
        _ip("netns", "del", namespace)


@contextmanager
def _carried(devices: tuple[int, int], delay: float) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=_carry, args=(devices, delay, over), name="bench.line")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _carry(devices: tuple[int, int], delay: float, over: threading.Event) -> None:
    other = dict(zip(devices, reversed(devices), strict=True))
    # One delay for all: who comes first leaves first.
    under_way: deque[tuple[float, int, bytes]] = deque()
    while not over.is_set():
        pause = under_way[0][0] - time.monotonic() if under_way else LOOK_SECONDS
        # Not epoll, which counts its timeout in milliseconds.
        readable, _, _ = select.select(devices, (), (), min(max(pause, 0.0), LOOK_SECONDS))
        for device in readable:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = os.read(device, MTU)
                    under_way.append((time.monotonic() + delay, other[device], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, device, packet = under_way.popleft()
            with contextlib.suppress(OSError):  # A full queue loses packets, as a router's does.
                os.write(device, packet)
