"""How long audio stands still after a drop: this package beside its neighbours.

    python benchmarks/recovery.py                       both ends here, over loopback
    python benchmarks/recovery.py server                at the far end of a line
    python benchmarks/recovery.py client                at the near end

The server listens on $WAN_FAR:$WAN_PORT, with a control port above it; $WAN_RTT is the line's
round trip in seconds. Each client streams 50 ms chunks of audio over TLS until the gateway
resets the connection; the gateway then measures until the first audio of the next one. One
round trip of that is the line's: the reset's way out and the audio's way in. What remains is
from the drop being seen to audio being sent again, and is what the table shows. In the second
column the first redial is rejected with a 503.

A neighbour that is not installed is left out, and named.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import ssl
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from agent_conn import InferenceConnection, ReplayBuffer, reconnect
from agent_conn.gateway import Gateway, Reject, Reset

CHUNK_SECONDS = 0.05
CHUNK = bytes(1600)
AUDIO = json.dumps({"type": "input_audio", "audio": base64.b64encode(CHUNK).decode()})
SETTINGS = {"sample_rate": "16000", "encoding": "pcm_s16le", "extra": {}}
CREATE = json.dumps({"type": "session.create", "settings": SETTINGS})
MESSAGES_OF_A_FLOW = 6
PATIENCE = 30.0


class Server:
    """The gateway, and a control port that tells it what to do."""

    def __init__(self, host: str, port: int) -> None:
        self._gateway = Gateway(host=host, port=port, tls=True)
        self._host, self._port = host, port

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while entered."""
        control = await asyncio.start_server(self._control, self._host, self._port + 1)
        async with control, self._gateway:
            yield

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            answer: object = None
            with contextlib.suppress(TimeoutError):
                answer = await getattr(self, asked.pop("do"))(**asked)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def certificate(self) -> str:
        """The authority to trust, as PEM."""
        context = self._gateway.client_ssl
        ders = context.get_ca_certs(binary_form=True) if context is not None else []
        return "".join(map(ssl.DER_cert_to_PEM_cert, ders))

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
        gateway, old = self._gateway, self._gateway.connections
        if rejections:
            gateway.inject(Reject(503), rejections)
        now = asyncio.get_running_loop().time
        dropped = now()
        for connection in old:
            connection.inject(Reset())
        await gateway.wait_until(
            lambda: any(one.messages_received > 1 for one in gateway.connections if one not in old),
            PATIENCE,
        )
        return now() - dropped

    async def idle(self) -> bool:
        """Wait until the last client has gone."""
        self._gateway.withdraw_faults()
        await self._gateway.wait_idle(PATIENCE)
        return True


@dataclass
class Target:
    """Where the clients dial, and whom they trust."""

    authority: str
    context: ssl.SSLContext
    session: aiohttp.ClientSession

    @property
    def stt(self) -> str:
        """The websocket's URL."""
        return f"wss://{self.authority}/v1/stt"


async def stream(send: Callable[[str], Awaitable[object]]) -> None:
    """Send audio in real time."""
    while True:
        await send(AUDIO)
        await asyncio.sleep(CHUNK_SECONDS)


async def pump_agent_conn(target: Target) -> None:
    buffer = ReplayBuffer[str]()

    async def record() -> None:
        while True:
            buffer.put_nowait(AUDIO, size=len(AUDIO), seconds=CHUNK_SECONDS)
            await asyncio.sleep(CHUNK_SECONDS)

    async def write(ws: aiohttp.ClientWebSocketResponse) -> None:
        async for chunk in buffer:
            await ws.send_str(chunk)

    dial = partial(
        InferenceConnection, target.session, target.stt, on_open=lambda ws: ws.send_str(CREATE)
    )
    async with asyncio.TaskGroup() as group, reconnect(dial) as loop:
        group.create_task(record())
        async for connection in loop:
            buffer.begin()
            writing = group.create_task(write(connection.ws))
            async for _ in connection.ws:
                pass
            writing.cancel()


async def pump_websockets(target: Target) -> None:
    from websockets.asyncio.client import ClientConnection, connect  # noqa: PLC0415
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

    async def read(ws: ClientConnection) -> None:
        async for _ in ws:
            pass

    async for ws in connect(target.stt, ssl=target.context, proxy=None):
        writing = asyncio.create_task(stream(ws.send))
        try:
            await ws.send(CREATE)
            await read(ws)
        except ConnectionClosed:
            pass
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def pump_pipecat(target: Target) -> None:
    import loguru  # noqa: PLC0415
    from pipecat.services.websocket_service import WebsocketService  # noqa: PLC0415

    loguru.logger.remove()

    class Service(WebsocketService):
        """The hooks that the base class asks of every service."""

        async def _connect_websocket(self) -> None:
            self._websocket = await self._websocket_connect(
                target.stt, ssl=target.context, proxy=None
            )
            await self._websocket.send(CREATE)

        async def _disconnect_websocket(self) -> None:
            if self._websocket is not None:
                await self._websocket.close()

        async def _connect(self) -> None: ...

        async def _disconnect(self) -> None: ...

        async def _receive_messages(self) -> None:
            websocket: Any = self._websocket
            writing = asyncio.create_task(stream(websocket.send))
            try:
                async for _ in websocket:
                    pass
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

        async def run(self) -> None:
            async def ignore(*_: object, **__: object) -> None: ...

            await self._connect_websocket()
            try:
                await self._receive_task_handler(ignore)
            finally:
                await self._disconnect_websocket()

    await Service().run()


async def pump_livekit(target: Target) -> None:
    from livekit import rtc  # noqa: PLC0415
    from livekit.agents import inference  # noqa: PLC0415

    stt = inference.STT(
        model="deepgram/nova-3",
        base_url=f"https://{target.authority}/v1",
        api_key="key",
        api_secret="secret-of-the-benchmark-of-32-bytes",  # noqa: S106  (of no account)
        sample_rate=16_000,
        http_session=target.session,
    )

    async def push(_: str) -> None:
        speech.push_frame(rtc.AudioFrame(CHUNK, 16_000, 1, len(CHUNK) // 2))

    async with stt.stream() as speech:
        writing = asyncio.create_task(stream(push))
        try:
            async for _ in speech:
                pass
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


PUMPS: dict[str, Callable[[Target], Awaitable[None]]] = {
    "agent_conn": pump_agent_conn,
    "livekit-agents": pump_livekit,
    "websockets": pump_websockets,
    "pipecat-ai": pump_pipecat,
}


class Control:
    """The client's end of the control port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, do: str, **what: object) -> Any:  # noqa: ANN401  (JSON)
        """Have the server do it; its answer, None where it lost its patience."""
        self._writer.write(json.dumps({"do": do, **what}).encode() + b"\n")
        return json.loads(await self._reader.readline())


async def one_round(
    control: Control, pump: Callable[[Target], Awaitable[None]], target: Target, rejections: int
) -> float | None:
    pumping = asyncio.ensure_future(pump(target))
    flowing = asyncio.create_task(control.ask("flowing"))
    await asyncio.wait({pumping, flowing}, return_when=asyncio.FIRST_COMPLETED)
    if pumping.done():
        await flowing
        await pumping
    gap: float | None = await control.ask("drop", rejections=rejections)
    pumping.cancel()
    await asyncio.gather(pumping, return_exceptions=True)
    await control.ask("idle")
    return gap


def tell(gaps: list[float | None], rtt: float) -> str:
    """The median and the worst, less the line's round trip."""
    back = [gap - rtt for gap in gaps if gap is not None]
    if len(back) < len(gaps):
        return f"not back within {PATIENCE:g} s, {len(gaps) - len(back)} of {len(gaps)}"
    middle, worst = statistics.median(back), max(back)
    trips = f" = {middle / rtt:.2f} round trips" if rtt else ""
    return f"{1000 * middle:.0f} ms{trips}, worst {1000 * worst:.0f} ms"


async def client(host: str, port: int, rtt: float, rounds: int) -> None:
    reader, writer = await asyncio.open_connection(host, port + 1)
    control = Control(reader, writer)
    context = ssl.create_default_context(cadata=await control.ask("certificate"))
    print(f"round trip {1000 * rtt:g} ms, TLS, {rounds} rounds; median")
    print(f"{'':16}{'after a drop':42}after a drop and a 503")
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        target = Target(f"{host}:{port}", context, session)
        for name, pump in PUMPS.items():
            try:
                told = []
                for rejections in (0, 1):
                    gaps = [
                        await one_round(control, pump, target, rejections) for _ in range(rounds)
                    ]
                    told.append(tell(gaps, rtt))
                print(f"{name:16}{told[0]:42}{told[1]}", flush=True)
            except ImportError as error:
                print(f"{name:16}not installed: {error.name}", flush=True)
    writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast audio flows after a drop.")
    parser.add_argument("role", nargs="?", choices=("server", "client"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    host, port = os.environ.get("WAN_FAR", "127.0.0.1"), int(os.environ.get("WAN_PORT", "18443"))
    rtt = float(os.environ.get("WAN_RTT", "0"))
    if options.role == "client":
        await client(host, port, rtt, options.rounds)
        return
    async with Server(host, port).running():
        if options.role == "server":
            await asyncio.Event().wait()
        await client(host, port, rtt, options.rounds)


if __name__ == "__main__":
    asyncio.run(main())
