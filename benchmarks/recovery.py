"""How long audio stands still after a drop: this package beside its neighbours.

    python -m benchmarks --only recovery
    python benchmarks/recovery.py                       both ends here, over loopback
    python benchmarks/recovery.py server                at the far end of a line
    python benchmarks/recovery.py client                at the near end

The ends find each other as in ``benchmarks/far.py``. Each client streams 50 ms chunks of audio
over TLS for 1.5 s, until the gateway resets the connection; the gateway then measures until the
first audio of the next one. One round trip of that is the line's: the reset's way out and the
audio's way in. What remains is from the drop being seen to audio being sent again, and is what
the table shows. In its last columns the first redial is rejected with a 503.

A loop with a standby is dropped once its spare is ready, which takes up to 5 s of jitter. Each drop
has a loop of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from agent_conn import InferenceConnection, Reconnector, ReplayBuffer, Standby, reconnect
from benchmarks.far import DEFAULT_PORT, PATIENCE, Far, far_process, reach, serve
from benchmarks.line import missing
from benchmarks.loops import add_loop_option, run_on_loop
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, counted
from benchmarks.peers import NOT_INSTALLED, OURS, version
from benchmarks.render import as_text
from benchmarks.results import Cell, Column, Result
from benchmarks.results import Target as Bar

CHUNK_SECONDS = 0.05
CHUNK = bytes(1600)
AUDIO = json.dumps({"type": "input_audio", "audio": base64.b64encode(CHUNK).decode()})
SETTINGS = {"sample_rate": "16000", "encoding": "pcm_s16le", "extra": {}}
CREATE = json.dumps({"type": "session.create", "settings": SETTINGS})
LINE = 0.08
FLOWING = 1.5
"""Seconds of audio before the drop: a connection that lived for less than one is no sign of a
gateway in order, and agent_conn does not dial that at once."""
COLD, TRANSPORT, WEBSOCKET = OURS, f"{OURS}, TRANSPORT", f"{OURS}, WEBSOCKET"
BARS_MS = {COLD: 250.0, TRANSPORT: 90.0, WEBSOCKET: 10.0}
"""On the line of 80 ms."""


@dataclass
class Target:
    """Where the clients dial, and the session for those that take one."""

    far: Far
    session: aiohttp.ClientSession
    loop: Reconnector | None = None
    """That of agent_conn's pump, which sets it."""

    @property
    def stt(self) -> str:
        """The websocket's URL."""
        return self.far.url("/v1/stt")


async def stream(send: Callable[[str], Awaitable[object]]) -> None:
    """Send audio in real time."""
    while True:
        await send(AUDIO)
        await asyncio.sleep(CHUNK_SECONDS)


async def pump_agent_conn(target: Target, standby: Standby | None = None) -> None:
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

    async def pump(connection: InferenceConnection) -> None:
        buffer.begin()
        async with asyncio.TaskGroup() as both:
            writing = both.create_task(write(connection.ws))
            async for _ in connection.ws:
                pass
            writing.cancel()

    async with asyncio.TaskGroup() as group, reconnect(dial, standby=standby) as loop:
        target.loop = loop
        group.create_task(record())
        await loop.run(pump)


async def pump_websockets(target: Target) -> None:
    from websockets.asyncio.client import ClientConnection, connect  # noqa: PLC0415
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

    async def read(ws: ClientConnection) -> None:
        async for _ in ws:
            pass

    async for ws in connect(target.stt, ssl=target.far.context, proxy=None):
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
                target.stt, ssl=target.far.context, proxy=None
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
        base_url=target.far.base_url,
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
    COLD: pump_agent_conn,
    TRANSPORT: partial(pump_agent_conn, standby=Standby.TRANSPORT),
    WEBSOCKET: partial(pump_agent_conn, standby=Standby.WEBSOCKET),
    "livekit-agents": pump_livekit,
    "websockets": pump_websockets,
    "pipecat-ai": pump_pipecat,
}


@asynccontextmanager
async def flowing(
    far: Far, pump: Callable[[Target], Awaitable[None]], target: Target
) -> AsyncIterator[None]:
    """``pump`` while entered, whose audio flows from the beginning on."""
    pumping = asyncio.ensure_future(pump(target))
    begun = asyncio.create_task(far.ask("flowing"))
    await asyncio.wait({pumping, begun}, return_when=asyncio.FIRST_COMPLETED)
    if pumping.done():
        await begun
        await pumping
    await asyncio.sleep(FLOWING)
    try:
        yield
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
        await far.ask("idle")


async def drop(far: Far, name: str, target: Target, rejections: int) -> float | None:
    """Seconds from a drop to audio again, the line's round trip taken off."""
    async with flowing(far, PUMPS[name], target):
        if name in {TRANSPORT, WEBSOCKET}:
            await spare_is_ready(target)
        gap: float | None = await far.ask("drop", rejections=rejections)
    return None if gap is None else gap - far.rtt


async def spare_is_ready(target: Target) -> None:
    async with asyncio.timeout(PATIENCE):
        while target.loop is None or not target.loop.statistics.spare_ready:  # noqa: ASYNC110
            await asyncio.sleep(CHUNK_SECONDS)


Gaps = list[float | None]


def is_installed(name: str) -> bool:
    """Whether the package of a row is there."""
    return version(name.partition(",")[0]) is not None


async def measure(far: Far, tell: Tell, *, rounds: int) -> dict[str, list[Gaps]]:
    """By peer, the gaps after a drop, and after a drop and a rejection."""
    connector = aiohttp.TCPConnector(ssl=far.context or True)
    async with aiohttp.ClientSession(connector=connector) as session:
        target = Target(far, session)
        found: dict[str, list[Gaps]] = {name: [[], []] for name in PUMPS if is_installed(name)}
        for _ in counted(rounds, tell):
            for name, columns in found.items():
                for rejections, gaps in enumerate(columns):
                    gaps.append(await drop(far, name, target, rejections))
    return found


def steps(*, quick: bool) -> list[Step]:
    if quick:
        return [Step({"rounds": 1}, tls=True)]
    return [Step({"rounds": 5}, LINE if missing() is None else 0.0, tls=True)]


def combine(outcomes: Outcomes) -> Result:
    ((step, found),) = outcomes
    return Result(
        name="recovery",
        title="From a drop to audio again",
        note=f"Over TLS and a line of {step.round_trip * 1e3:g} ms, whose round trip is taken off; "
        "the gateway resets the connection, and rejects the first redial with a 503 in the last "
        f"two columns. Rounds: {step.arguments['rounds']}.",
        columns=[
            Column(f"{which} ms after a {what}", 0)
            for what in ("drop", "drop and a 503")
            for which in ("median", "worst")
        ],
        rows={
            name: [cell for gaps in found[name] for cell in summary(gaps)]
            if name in found
            else [NOT_INSTALLED] * 4
            for name in PUMPS
        },
        targets=bars(step.round_trip, found),
    )


def bars(round_trip: float, found: dict[str, list[Gaps]]) -> list[Bar]:
    """What the medians must not be above; they are for one line."""
    if round_trip != LINE:
        return []
    return [
        Bar(f"{name}: at most {most:g} ms after a drop", median(found[name][0]), most)
        for name, most in BARS_MS.items()
    ]


def median(gaps: Gaps) -> float:
    """In milliseconds; a round that was not back counts as long as it was waited for."""
    return 1e3 * statistics.median(PATIENCE if gap is None else gap for gap in gaps)


def summary(gaps: Gaps) -> list[Cell]:
    """The median and the worst, in milliseconds."""
    back = [gap * 1e3 for gap in gaps if gap is not None]
    if len(back) < len(gaps):
        lost = f"{len(gaps) - len(back)} of {len(gaps)} not back in {PATIENCE:g} s"
        return [statistics.median(back) if back else lost, lost]
    return [statistics.median(back), max(back)]


MEASUREMENT = Measurement(__name__, "recovery after a drop", steps, combine)


async def by_hand(port: int | None, rounds: int) -> None:
    async with reach(port=port) as far:
        found = await measure(far, lambda _: None, rounds=rounds)
        step = Step({"rounds": rounds}, far.rtt, tls=True)
    print(as_text(combine([(step, found)])))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast audio flows after a drop.")
    parser.add_argument("role", nargs="?", choices=("server", "client"))
    parser.add_argument("--rounds", type=int, default=5)
    add_loop_option(parser)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.role == "server":
        host = os.environ.get("WAN_FAR", "127.0.0.1")
        port = int(os.environ.get("WAN_PORT", DEFAULT_PORT))
        asyncio.run(serve(host, port, tls=True))
    elif options.role == "client":
        run_on_loop(by_hand(None, options.rounds), options.loop)
    else:
        with far_process(tls=True) as port:
            run_on_loop(by_hand(port, options.rounds), options.loop)


if __name__ == "__main__":
    main()
