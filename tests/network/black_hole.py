"""How long a connection goes on once its network has died without a word.

    python tests/network/black_hole.py --network-timeout 5

Two namespaces are joined by a third; its far link goes down, so that packets leave the near one
and nothing comes back. It needs Linux, root and iproute2, prints one JSON object, and leaves
nothing behind: the loss that a connection met which was sending, and one that was idle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import web

from agent_conn import InferenceConnection

NEAR, FAR, PORT = "198.18.7.1", "198.18.7.2", 8765
CHUNK = b"\x00" * 1600
PATIENCE = 30.0


def missing() -> str | None:
    """What this machine lacks, or None."""
    if sys.platform != "linux":
        return "Linux"
    if os.geteuid() != 0:
        return "root"
    return None if shutil.which("ip") else "iproute2"


@contextmanager
def network() -> Iterator[tuple[str, str, str]]:
    """The names of the near, the middle and the far namespace."""
    near, middle, far = (f"ac{os.getpid()}{end}" for end in "nmf")
    try:
        for namespace in (near, middle, far):
            ip("netns", "add", namespace)
        ip("-n", middle, "link", "add", "br0", "type", "bridge")
        for namespace, address in ((near, NEAR), (far, FAR)):
            end = f"to{namespace[-1]}"
            ip("-n", middle, "link", "add", end, "type", "veth", "peer", "eth0", "netns", namespace)
            ip("-n", middle, "link", "set", end, "master", "br0", "up")
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
        ip("-n", middle, "link", "set", "br0", "up")
        yield near, middle, far
    finally:
        for namespace in (near, middle, far):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def serve() -> None:
    """Take websockets and read what comes, until the process is ended."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, FAR, PORT).start()
    print("listening", flush=True)
    await asyncio.Event().wait()


async def meet_the_end(network_timeout: float) -> None:
    """Open two connections, say so, and print how each of them was lost."""
    async with aiohttp.ClientSession() as session:
        ways = {"sending": True, "idle": False}
        connections = {
            name: InferenceConnection(
                session, f"ws://{FAR}:{PORT}/", network_timeout=network_timeout, heartbeat=None
            )
            for name in ways
        }
        for connection in connections.values():
            await connection
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        losses = await asyncio.gather(
            *(_lost(connections[name], sends=sends) for name, sends in ways.items())
        )
        print(json.dumps(dict(zip(ways, losses, strict=True))), flush=True)


async def _lost(connection: InferenceConnection, *, sends: bool) -> dict[str, Any]:
    async def send() -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                await connection.ws.send_bytes(CHUNK)
                await asyncio.sleep(0.05)

    started = asyncio.get_running_loop().time()
    sending = asyncio.create_task(send()) if sends else None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            async for _ in connection.ws:
                pass
    seconds = asyncio.get_running_loop().time() - started
    if sending is not None:
        sending.cancel()
        await asyncio.wait({sending})
    loss = connection.loss
    await connection.aclose()
    return {"seconds": seconds, "reason": loss.reason if loss else None}


def measure(network_timeout: float) -> dict[str, Any]:
    """The two losses, by name."""
    own = [sys.executable, __file__, "--network-timeout", str(network_timeout), "--end"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with network() as (near, middle, far):
        enter = ["ip", "netns", "exec"]
        with subprocess.Popen([*enter, far, *own, "far"], **pipes) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                with subprocess.Popen([*enter, near, *own, "near"], **pipes) as client:
                    assert client.stdin is not None
                    assert client.stdout is not None
                    client.stdout.readline()
                    ip("-n", middle, "link", "set", "tof", "down")
                    client.stdin.write("\n")
                    client.stdin.flush()
                    found: dict[str, Any] = json.loads(client.stdout.readline() or "{}")
            finally:
                server.kill()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network-timeout", type=float, default=5.0)
    parser.add_argument("--end", choices=["near", "far"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.end == "far":
        asyncio.run(serve())
    elif options.end == "near":
        asyncio.run(meet_the_end(options.network_timeout))
    elif lacking := missing():
        sys.exit(f"this needs {lacking}")
    else:
        print(json.dumps(measure(options.network_timeout)))


if __name__ == "__main__":
    main()
