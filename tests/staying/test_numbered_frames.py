"""Numbered frames through a line that breaks: none is lost in silence, none counted twice."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import pytest
from helpers.virtual_time import elapse, in_virtual_time, until_idle

from agent_conn import (
    InferenceConnection,
    Reconnector,
    ReplayBuffer,
    RetryPolicy,
    reconnect,
)
from agent_conn.gateway import (
    CloseWith,
    Gateway,
    GoSilent,
    Reject,
    Reset,
    SpokenAudio,
    StopReading,
    Transcript,
)

FRAME_SECONDS = 0.01
FRAME_BYTES = 320
FRAMES_A_FINAL = 20
QUICK = {"heartbeat": 1.0, "close_timeout": 0.1}
SESSION = {"settings": {"sample_rate": "16000", "encoding": "pcm_s16le", "extra": {}}}
KINDS = ("reset", "close 1011", "silence", "stall", "rejected redials")


class NumberEngine:
    """Hears the number of each frame; a final names a stretch of what one connection heard."""

    def __init__(self) -> None:
        self.heard: list[list[int]] = []

    def recognizer(self, sample_rate: int, language: str | None = None) -> NumberRecognizer:
        self.heard.append([])
        return NumberRecognizer(len(self.heard) - 1, self.heard[-1])

    async def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        raise NotImplementedError
        yield


@dataclass
class NumberRecognizer:
    index: int
    heard: list[int]
    told: int = 0

    async def feed(self, pcm: bytes) -> list[Transcript]:
        self.heard.append(int.from_bytes(pcm[:4]))
        due = len(self.heard) - self.told >= FRAMES_A_FINAL
        return await self.finalize() if due else []

    async def finalize(self) -> list[Transcript]:
        first, self.told = self.told, len(self.heard)
        start, end = first * FRAME_SECONDS, self.told * FRAME_SECONDS
        text = f"{self.index} {first} {self.told}"
        return [Transcript(text, True, start, end - start)] if self.told > first else []

    async def aclose(self) -> None:
        pass


@dataclass
class Trouble:
    """Faults at random places of the stream, every kind as often as the others."""

    gateway: Gateway
    frames: int
    faults: int
    kinds: tuple[str, ...] = KINDS
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    struck: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # One in each stretch, and not in its end: the connection after a drop is another one.
        stretch = self.frames // self.faults
        least = range(0, self.frames, stretch)[: self.faults]
        self._places = [first + self.dice.randrange(stretch * 2 // 3) for first in least]
        kinds = len(self.kinds)
        self._kinds = [self.kinds[number % kinds] for number in range(self.faults)]
        self.dice.shuffle(self._kinds)

    def at(self, frame: int) -> None:
        while self._places and frame >= self._places[0]:
            self._places.pop(0)
            self._strike(self._kinds[len(self.struck)])

    def _strike(self, kind: str) -> None:
        self.struck.append(kind)
        soon = self.dice.randrange(1, 30)
        if kind == "rejected redials":
            self.gateway.inject(Reject(503), times=self.dice.randrange(1, 4))
        for connection in self.gateway.connections[-1:]:
            if kind == "close 1011":
                connection.inject(CloseWith(1011, soon))
            elif kind == "silence":
                connection.inject(GoSilent(soon))
            elif kind == "stall":
                connection.inject(StopReading(soon))
            else:
                connection.inject(Reset())


@dataclass
class Pump:
    buffer: ReplayBuffer[bytes]
    loop: Reconnector
    trouble: Trouble
    finals: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Of each final: the connection, its stretch of what that heard, and the items it covers."""

    async def run(self) -> None:
        async for connection in self.loop:
            self.buffer.begin()
            reading = asyncio.create_task(self._read(connection.ws))
            writing = asyncio.create_task(self._write(connection.ws))
            await asyncio.wait({reading})
            writing.cancel()
            # A sender that the peer has blocked is freed by the close.
            closing = asyncio.create_task(connection.aclose())
            await asyncio.wait({writing, closing})
            if not writing.cancelled():
                assert isinstance(writing.exception(), ConnectionError | None)
            reading.result()
            if self._finished:
                break
        await self.loop.aclose()
        self.buffer.close()

    @property
    def _finished(self) -> bool:
        told = self.buffer.statistics
        return told.put == self.trouble.frames and not told.pending

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is aiohttp.WSMsgType.ERROR:
                return
            heard = message.json()
            if heard["type"] == "final_transcript":
                covered = self.buffer.acknowledge(heard["start"] + heard["duration"])
                index, first, last = map(int, heard["transcript"].split())
                self.finals.append((index, first, last, covered))
                if self._finished:
                    return

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in self.buffer:
            self.trouble.at(int.from_bytes(frame[:4]))
            audio = base64.b64encode(frame).decode()
            await ws.send_json({"type": "input_audio", "audio": audio})
        await ws.send_json({"type": "session.finalize"})


async def numbered(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield number.to_bytes(4).ljust(FRAME_BYTES, b"\0")


async def create(ws: aiohttp.ClientWebSocketResponse) -> None:
    await ws.send_json({"type": "session.create", **SESSION})


async def stream(
    buffer: ReplayBuffer[bytes],
    *,
    frames: int,
    faults: int,
    live: bool,
    kinds: tuple[str, ...] = KINDS,
    options: dict[str, float] | None = None,
) -> tuple[Pump, NumberEngine, list[int]]:
    """Stream through the faults; what was acknowledged, as numbers."""
    engine = NumberEngine()
    async with Gateway(engine) as gateway, aiohttp.ClientSession() as session:
        dial = partial(InferenceConnection, session, gateway.url("/v1/stt"), on_open=create)
        # Time that passes with the frames alone is too short for a budget.
        retry = RetryPolicy() if live else RetryPolicy(attempts=None, initial=0.02)
        pump = Pump(
            buffer,
            reconnect(
                partial(dial, **(options or {})), retry=retry, random=random.Random(1).random
            ),
            Trouble(gateway, frames, faults, kinds),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(pump.run())
            async for frame in numbered(frames):
                if live:
                    pump.buffer.put_nowait(frame, size=FRAME_BYTES, seconds=FRAME_SECONDS)
                    await elapse(FRAME_SECONDS)
                else:
                    await pump.buffer.put(frame, size=FRAME_BYTES, seconds=FRAME_SECONDS)
            pump.buffer.end()
        await until_idle(gateway)
    return pump, engine, [n for i, a, b, _ in pump.finals for n in engine.heard[i][a:b]]


def test_with_a_bound_of_ten_seconds_fifty_faults_lose_nothing() -> None:
    pump, engine, numbers = in_virtual_time(
        lambda: stream(
            ReplayBuffer(max_seconds=10.0), frames=20_000, faults=50, live=False, options=QUICK
        )
    )
    assert {kind: pump.trouble.struck.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 10)
    assert numbers == list(range(20_000))
    assert all(covered == last - first for _, first, last, covered in pump.finals)
    for heard in engine.heard:
        assert heard == list(range(heard[0], heard[0] + len(heard)))
    told = pump.buffer.statistics
    assert sum(told.given_up.values()) == told.unsent == 0
    assert told.acknowledged + told.replayed == told.put == 20_000
    assert told.replayed > 0


def test_a_thousand_drops_at_random_lose_and_double_no_audio() -> None:
    pump, _, numbers = in_virtual_time(
        lambda: stream(
            ReplayBuffer(max_seconds=0.5),
            frames=150_000,
            faults=1_000,
            live=False,
            kinds=("reset",),
            options=QUICK,
        )
    )
    assert len(pump.trouble.struck) == 1_000
    assert pump.loop.statistics.lost == 1_000
    assert numbers == list(range(150_000))
    told = pump.buffer.statistics
    assert sum(told.given_up.values()) == told.unsent == 0


@pytest.mark.parametrize("bound", [0.3, 1.0])
def test_with_a_smaller_bound_every_gap_is_counted_as_given_up(bound: float) -> None:
    pump, _, numbers = in_virtual_time(
        lambda: stream(
            ReplayBuffer(max_seconds=bound), frames=1_500, faults=20, live=True, options=QUICK
        )
    )
    told = pump.buffer.statistics
    assert numbers == sorted(set(numbers))
    assert len(numbers) == told.acknowledged + told.replayed
    missing = 1_500 - len(numbers)
    assert missing == sum(told.given_up.values()) + told.unsent
    assert missing > 0


def test_with_the_defaults_a_peer_that_freezes_costs_no_audio() -> None:
    pump, _, numbers = in_virtual_time(
        lambda: stream(ReplayBuffer(), frames=4_500, faults=1, live=True, kinds=("silence",))
    )
    assert pump.trouble.struck == ["silence"]
    assert pump.loop.statistics.lost == 1
    assert numbers == list(range(4_500))
