"""The far end of a benchmark: a gateway in a process of its own, told what to do over TCP.

    python benchmarks/far.py --host ADDRESS --port 8443 --tls

The control port is two above the gateway's. A benchmark at the near end finds both by
WAN_FAR and WAN_PORT, and takes the line's round trip in seconds from WAN_RTT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import os
import random
import resource
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from agent_conn.gateway import (
    AcceptAndClose,
    BadAccept,
    CloseWith,
    Connection,
    DropAfter,
    DropHandshake,
    Fault,
    Garbage,
    Gateway,
    GoSilent,
    IgnoreClose,
    NotWebSocket,
    Reject,
    Reset,
    StallInHandshake,
    StopReading,
    UnaskedExtension,
)

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PORT = 18443
CONTROL_ABOVE = 2
"""Linux keeps every other port for dials, and thousands of dials keep these taken for a minute."""
PATIENCE = 30.0
RARE_COLLECTIONS = (700, 10, 1_000)
"""Thresholds of ``gc.set_threshold``: the last is a hundred times Python 3.11's."""
TRIES = 50
MESSAGES_OF_A_FLOW = 6
# From linux/filter.h, which Python has no names for: a program that keeps 0 bytes of a packet.
SO_ATTACH_FILTER, RETURN_0 = 26, struct.pack("HBBI", 0x06, 0, 0, 0)
OPEN_FAULTS: dict[str, Fault] = {
    "reset": Reset(),
    "drop": DropAfter(),
    "close 1001": CloseWith(1001),
    "close 1011": CloseWith(1011),
    "silence": GoSilent(),
    "stop reading": StopReading(),
    "ignore close": IgnoreClose(),
}
HANDSHAKE_FAULTS: dict[str, Fault] = {
    "503": Reject(503),
    "429": Reject(429, {"Retry-After": "1"}),
    "stalled handshake": StallInHandshake(),
    "dropped handshake": DropHandshake(),
    "accepted and closed": AcceptAndClose(),
    "reset handshake": Reset("handshake"),
    "garbage": Garbage(),
    "bad accept": BadAccept(),
    "no websocket": NotWebSocket(),
    "unasked extension": UnaskedExtension(),
}


def deafen(port: int) -> None:
    """Drop every packet that reaches a connection of ``port`` which is open now. Linux only."""
    nothing = ctypes.create_string_buffer(RETURN_0, len(RETURN_0))
    program = struct.pack("HP", 1, ctypes.addressof(nothing))
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as one:
            inet = one.family in {socket.AF_INET, socket.AF_INET6}
            if inet and one.getsockname()[1] == port and one.getpeername():
                one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


class FarEnd:
    """The gateway, and the control port that tells it what to do.

    Every public method is something that can be asked; its result goes back as JSON, None
    where it was not to be had within ``PATIENCE`` seconds.
    """

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self._gateway = Gateway(host=host, port=port, tls=tls)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Serve while entered; gives the gateway's port."""
        async with self._gateway as gateway:
            port = gateway.port + CONTROL_ABOVE
            control = await asyncio.start_server(self._serve, gateway.host, port)
            async with control:
                yield gateway.port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            answer: object = None
            with contextlib.suppress(TimeoutError):
                answer = await getattr(self, asked.pop("do"))(**asked)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def certificate(self) -> str:
        """The authority to trust, as PEM; empty without TLS."""
        context = self._gateway.client_ssl
        ders = context.get_ca_certs(binary_form=True) if context is not None else []
        return "".join(map(ssl.DER_cert_to_PEM_cert, ders))

    async def sockets(self) -> int:
        """How many sockets are open."""
        return self._gateway.open_sockets

    async def holding(self, *, sockets: int, patience: float = PATIENCE) -> bool:
        """Wait until this many sockets are open."""
        gateway = self._gateway
        await gateway.wait_until(lambda: gateway.open_sockets == sockets, patience)
        return True

    async def flowing(self) -> bool:
        """Wait until audio flows."""
        gateway = self._gateway
        await gateway.wait_until(
            lambda: any(one.messages_received >= MESSAGES_OF_A_FLOW for one in gateway.connections),
            PATIENCE,
        )
        return True

    async def drop(self, *, rejections: int) -> float:
        """Reset what is open; the seconds until audio came on another connection."""
        gateway, old = self._gateway, self._in_use()
        if rejections:
            gateway.inject(Reject(503), rejections)
        now = asyncio.get_running_loop().time
        dropped = now()
        for connection in old:
            connection.inject(Reset())
        await gateway.wait_until(lambda: self._flows_beside(old), PATIENCE)
        return now() - dropped

    async def silence(self, *, code: int | None) -> float:
        """The longest time without audio, until it flows on another connection.

        Args:
            code: of the Close frame that ends what is open; None: the client moves by itself.
        """
        gateway, old = self._gateway, self._in_use()
        now = asyncio.get_running_loop().time
        heard, last, longest = 0, now(), 0.0

        def has_moved() -> bool:
            nonlocal heard, last, longest
            there = {*old, *gateway.connections}
            if (total := sum(one.messages_received for one in there)) > heard:
                heard, last, longest = total, now(), max(longest, now() - last)
            return self._flows_beside(old)

        for connection in old if code is not None else ():
            connection.inject(CloseWith(code or 0))
        await gateway.wait_until(has_moved, PATIENCE)
        return longest

    async def black_hole(self) -> float:
        """Lose all that comes on what is open; the seconds until audio came on another."""
        gateway, old = self._gateway, self._in_use()
        now = asyncio.get_running_loop().time
        began = now()
        deafen(gateway.port)
        try:
            await gateway.wait_until(lambda: self._flows_beside(old), PATIENCE)
        finally:
            # They hear of no close either.
            for connection in old:
                connection.inject(Reset())
        return now() - began

    def _in_use(self) -> list[Connection]:
        """The connections that audio flows on; a spare has none."""
        there = self._gateway.connections
        return [one for one in there if one.messages_received > 1]

    def _flows_beside(self, old: list[Connection]) -> bool:
        return any(one not in old for one in self._in_use())

    async def strike(self, *, fault: str, seed: int) -> bool:
        """Have an open connection, drawn by ``seed``, or the next handshake meet ``fault``."""
        if fault in HANDSHAKE_FAULTS:
            self._gateway.inject(HANDSHAKE_FAULTS[fault])
            return True
        open_ones = self._gateway.connections
        if not open_ones:
            return False
        random.Random(seed).choice(open_ones).inject(OPEN_FAULTS[fault])  # noqa: S311  (dice)
        return True

    async def stall(self) -> bool:
        """Answer the next handshake never."""
        self._gateway.inject(StallInHandshake())
        return True

    async def behave(self) -> bool:
        """Withdraw the faults that struck nobody yet."""
        self._gateway.withdraw_faults()
        return True

    async def idle(self) -> bool:
        """Withdraw the faults and wait until the last client has gone."""
        self._gateway.withdraw_faults()
        await self._gateway.wait_idle(PATIENCE)
        return True


class Far:
    """The far end as the near one sees it."""

    def __init__(
        self, host: str, port: int, rtt: float, control: tuple[Any, Any], certificate: str
    ) -> None:
        self.host = host
        self.port = port
        self.rtt = rtt
        self.context: ssl.SSLContext | None = (
            ssl.create_default_context(cadata=certificate) if certificate else None
        )
        self._reader, self._writer = control
        self._turn = asyncio.Lock()
        self._exchanges: set[asyncio.Task[Any]] = set()

    @property
    def authority(self) -> str:
        """The gateway's host and port."""
        return f"{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What LiveKit's clients take."""
        return f"http{'s' if self.context else ''}://{self.authority}/v1"

    def url(self, path: str = "/v1/echo") -> str:
        """The websocket's URL."""
        return f"ws{'s' if self.context else ''}://{self.authority}{path}"

    async def ask(self, do: str, **what: object) -> Any:  # noqa: ANN401  (JSON)
        """Have the far end do it; its answer, None where it lost its patience.

        Who is cancelled here leaves no answer behind that the next would take for its own.
        """
        exchange = asyncio.create_task(self._exchange({"do": do, **what}), name="bench.ask")
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        return await asyncio.shield(exchange)

    async def aclose(self) -> None:
        """Take no more answers."""
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)

    async def _exchange(self, asked: dict[str, object]) -> Any:  # noqa: ANN401  (JSON)
        async with self._turn:
            self._writer.write(json.dumps(asked).encode() + b"\n")
            return json.loads(await self._reader.readline())


@asynccontextmanager
async def reach(
    host: str | None = None, port: int | None = None, rtt: float | None = None
) -> AsyncIterator[Far]:
    """Talk to the far end, by default the one that the environment names.

    Raises:
        SystemExit: none answers there.
    """
    host = host or os.environ.get("WAN_FAR", "127.0.0.1")
    port = port or int(os.environ.get("WAN_PORT", DEFAULT_PORT))
    rtt = float(os.environ.get("WAN_RTT", "0")) if rtt is None else rtt
    try:
        reader, writer = await asyncio.open_connection(host, port + CONTROL_ABOVE)
    except OSError as error:
        where = f"{host}, port {port + CONTROL_ABOVE}"
        raise SystemExit(f"no far end at {where}: {error.strerror}") from None
    try:
        writer.write(b'{"do": "certificate"}\n')
        certificate = json.loads(await reader.readline())
        far = Far(host, port, rtt, (reader, writer), certificate)
        try:
            yield far
        finally:
            await far.aclose()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextmanager
def far_process(
    *, tls: bool = False, host: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Iterator[int]:
    """A far end in a process of its own while entered; gives its port.

    Args:
        tls: whether it serves TLS.
        host: the address to listen on.
        inside: what to put before the command, such as ``ip netns exec NAME``.

    Raises:
        RuntimeError: it did not come up.
    """
    command = [*inside, sys.executable, "-m", "benchmarks.far", "--host", host, "--port", "0"]
    process = subprocess.Popen(  # noqa: S603  (ours)
        [*command, "--until-eof", *(["--tls"] if tls else [])],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the near end, which asks for the last counts after it.
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            if not line:
                raise RuntimeError("the far end did not come up")
            yield int(line)
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have; how many these are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


async def serve(host: str, port: int, *, tls: bool, until_eof: bool = False) -> None:
    """Serve until cancelled, or with ``until_eof`` until who started this closes its end."""
    raise_descriptor_limit()
    # What is measured is the near end, which a full collection here would hold up.
    gc.set_threshold(*RARE_COLLECTIONS)
    for left in reversed(range(1 if port else TRIES)):
        try:
            async with FarEnd(host, port, tls=tls).running() as bound:
                print(bound, flush=True)
                await (asyncio.to_thread(sys.stdin.read) if until_eof else asyncio.Event().wait())
                return
        except OSError:
            # A free port of the kernel's choice may have a taken one beside it.
            if not left:
                raise


def main() -> None:
    parser = argparse.ArgumentParser(description="The gateway at the far end of a benchmark.")
    parser.add_argument("--host", default=os.environ.get("WAN_FAR", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("WAN_PORT", DEFAULT_PORT)))
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin does")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.host, options.port, tls=options.tls, until_eof=options.until_eof))


if __name__ == "__main__":
    main()
