"""The streams of a soak: what a voice agent's pumps do, turn after turn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import aiohttp

from agent_conn import (
    AgentConnError,
    AgentIdentity,
    ConnectionPool,
    InferenceConnection,
    UpgradePolicy,
    reconnect,
)
from benchmarks.recovery import AUDIO, CHUNK_SECONDS, CREATE

SPEAK = (
    json.dumps({"type": "input_transcript", "transcript": "Yes."}),
    json.dumps({"type": "session.flush"}),
)
CREATE_VOICE = json.dumps(
    {"type": "session.create", "sample_rate": "24000", "encoding": "pcm_s16le", "extra": {}}
)
CHUNKS_A_SENTENCE = 20
TURNS, TURN_SECONDS = (3, 10), (2.0, 6.0)
ROOM_AFTER_SECONDS, CONNECT_WAIT = (0.0, 1.0), 0.5
OPEN_TIMEOUT = 3.0
PAUSE_SECONDS = 0.2
POOL_SIZE, POOL_AGE = 100, 20.0

WebSocket = aiohttp.ClientWebSocketResponse


async def _hear(ws: WebSocket, chunk: int) -> None:
    del chunk
    await ws.send_str(AUDIO)


async def _speak(ws: WebSocket, chunk: int) -> None:
    if chunk % CHUNKS_A_SENTENCE == 0:
        for text in SPEAK:
            await ws.send_str(text)


KINDS: dict[str, tuple[str, Callable[[WebSocket, int], Awaitable[None]]]] = {
    "/v1/stt": (CREATE, _hear),
    "/v1/tts": (CREATE_VOICE, _speak),
    "/v1/echo": (AUDIO, _hear),
}
"""By path, the first message and what is sent every 50 ms."""


class Streams:
    """Streams over one session, of every kind by turns; each fifth borrows from a pool.

    Each talks for 2 to 6 s, then ends its connection and opens another, 3 to 10 times in one
    loop. A loop's room connects within a second of its start, in half of them later than it
    waits: then a better connection is opened beside the first.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: Callable[[str], str], seed: int
    ) -> None:
        self._session = session
        self._url = url
        self._chance = random.Random(seed)  # noqa: S311  (dice)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._opened = 0
        room = asyncio.Event()
        room.set()
        self._pool = ConnectionPool(
            partial(self._connection, "/v1/echo", room), max_size=POOL_SIZE, max_age=POOL_AGE
        )
        self.endings: Counter[str] = Counter()
        """How often a stream ended by an error or was cancelled, by its name."""

    @property
    def cycles(self) -> int:
        """How many connections were opened."""
        return self._opened + self._pool.statistics().dialed

    def start(self, number: int) -> None:
        """Start a stream."""
        self._tasks[number] = asyncio.create_task(self._run(number), name=f"soak.stream-{number}")

    async def restart_one(self) -> None:
        """Cancel a stream, wherever it is, and start it anew."""
        number = self._chance.choice(list(self._tasks))
        task = self._tasks[number]
        task.cancel()
        await asyncio.wait({task})
        self.endings["cancelled"] += 1
        self.start(number)

    async def aclose(self) -> None:
        """End all streams.

        Raises:
            Exception: a stream failed by something that no stream should meet.
        """
        for task in self._tasks.values():
            task.cancel()
        ended = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._pool.aclose()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _connection(self, path: str, room: asyncio.Event) -> InferenceConnection:
        first, _ = KINDS[path]
        return InferenceConnection(
            self._session,
            self._url(path),
            identity=lambda: AgentIdentity(
                job_id="AJ_1", room_id="RM_1", agent_id="PA_1" if room.is_set() else None
            ),
            room_connected=room,
            connect_wait=CONNECT_WAIT,
            open_timeout=OPEN_TIMEOUT,
            on_open=lambda ws: ws.send_str(first),
        )

    async def _run(self, number: int) -> None:
        path = tuple(KINDS)[number % len(KINDS)]
        # Not all in the same millisecond.
        await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        while True:
            try:
                if number % 5 == 0:
                    await self._borrow()
                else:
                    await self._reconnect(path)
            except AgentConnError as error:
                self.endings[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _borrow(self) -> None:
        async with self._pool.acquire() as connection:
            await self._talk(connection.ws, "/v1/echo")

    async def _reconnect(self, path: str) -> None:
        turns = self._chance.randint(*TURNS)
        async with (
            self._late_room() as room,
            reconnect(
                partial(self._connection, path, room),
                upgrade=UpgradePolicy(room_connected=room),
            ) as loop,
        ):
            async for connection in loop:
                self._opened += 1
                await self._talk(connection.ws, path)
                turns -= 1
                if not turns:
                    return

    @asynccontextmanager
    async def _late_room(self) -> AsyncIterator[asyncio.Event]:
        room = asyncio.Event()
        delay = self._chance.uniform(*ROOM_AFTER_SECONDS)
        timer = asyncio.get_running_loop().call_later(delay, room.set)
        try:
            yield room
        finally:
            timer.cancel()

    async def _talk(self, ws: WebSocket, path: str) -> None:
        """One turn, which the connection's end cuts short."""
        _, send = KINDS[path]
        reading = asyncio.create_task(_read(ws), name="soak.reading")
        try:
            for chunk in range(round(self._chance.uniform(*TURN_SECONDS) / CHUNK_SECONDS)):
                if reading.done():
                    break
                # What a lost connection looks like to who sends.
                with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                    await send(ws, chunk)
                await asyncio.sleep(CHUNK_SECONDS)
        finally:
            reading.cancel()
            await asyncio.wait({reading})


async def _read(ws: WebSocket) -> None:
    async for _ in ws:
        pass
