"""How long audio stands still where a connection's end is planned, or is a black hole.

    python -m benchmarks --only endings

The clients of ``benchmarks/recovery.py`` stream 50 ms chunks over TLS. At a planned end, agent_conn
is told to go by ``loop.rotate()``, or finds that ``max_age`` is over; it hands over between two
chunks. No neighbour can: the gateway closes their connection with 1001. The table shows the longest
time between two chunks at the gateway, less the 50 ms that are always between them. For those that
redial, it holds the round trip of the Close's way out and the audio's way in.

In a black hole, every packet of the connection in use is lost at the far end, without a word, while
a new connection would get through. The table shows the time until audio comes on another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import aiohttp

from agent_conn import InferenceConnection, UpgradePolicy, reconnect
from benchmarks.far import PATIENCE, Far
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, counted
from benchmarks.peers import NOT_INSTALLED, OURS
from benchmarks.recovery import (
    AUDIO,
    CHUNK_SECONDS,
    COLD,
    CREATE,
    FLOWING,
    LINE,
    PUMPS,
    TRANSPORT,
    WEBSOCKET,
    Gaps,
    Target,
    flowing,
    is_installed,
    median,
    summary,
)
from benchmarks.results import Column, Result
from benchmarks.results import Target as Bar

GOING_AWAY = 1001
MAX_AGE = FLOWING + 2.0
ROTATE, AGE = f"{OURS}, rotate()", f"{OURS}, max_age"
PLANNED_MS, BLACK_HOLE_MS = 5.0, 6_000.0


async def pump_in_turn(target: Target, max_age: float | None = None) -> None:
    """Stream, and go on with the next connection between two chunks once there is one."""
    chunks: asyncio.Queue[str] = asyncio.Queue()

    async def record() -> None:
        while True:
            chunks.put_nowait(AUDIO)
            await asyncio.sleep(CHUNK_SECONDS)

    async def read(connection: InferenceConnection) -> None:
        async for _ in connection.ws:
            pass

    async def pump(connection: InferenceConnection) -> None:
        reading = asyncio.create_task(read(connection))
        try:
            while target.loop is not None and target.loop.successor is None:
                await connection.ws.send_str(await chunks.get())
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    dial = partial(
        InferenceConnection, target.session, target.stt, on_open=lambda ws: ws.send_str(CREATE)
    )
    async with (
        asyncio.TaskGroup() as group,
        reconnect(dial, upgrade=UpgradePolicy(drain=read), max_age=max_age) as loop,
    ):
        target.loop = loop
        group.create_task(record())
        await loop.run(pump)


PLANNED: dict[str, Callable[[Target], Awaitable[None]]] = {
    ROTATE: pump_in_turn,
    AGE: partial(pump_in_turn, max_age=MAX_AGE),
    **{name: pump for name, pump in PUMPS.items() if name not in {COLD, TRANSPORT, WEBSOCKET}},
}


async def planned(far: Far, name: str, target: Target) -> float | None:
    """The silence at a planned end, in seconds."""
    code = None if name in {ROTATE, AGE} else GOING_AWAY
    async with flowing(far, PLANNED[name], target):
        asking = asyncio.create_task(far.ask("silence", code=code))
        if name == ROTATE and target.loop is not None:
            await target.loop.rotate()
        longest: float | None = await asking
    return None if longest is None else max(longest - CHUNK_SECONDS, 0.0)


async def black_hole(far: Far, name: str, target: Target) -> float | None:
    """Seconds from the first lost packet to audio again."""
    async with flowing(far, PUMPS[COLD if name == ROTATE else name], target):
        gap: float | None = await far.ask("black_hole")
    return gap


async def measure(far: Far, tell: Tell, *, rounds: int, holes: int) -> dict[str, list[Gaps]]:
    """By row, the gaps at planned ends, and in black holes."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=far.context or True)
    ) as session:
        found: dict[str, list[Gaps]] = {name: [[], []] for name in PLANNED if is_installed(name)}
        for done in counted(rounds, tell):
            for name, (ends, lost) in found.items():
                ends.append(await planned(far, name, Target(far, session)))
                if done < holes and name != AGE:
                    lost.append(await black_hole(far, name, Target(far, session)))
    return found


def steps(*, quick: bool) -> list[Step]:
    return [Step({"rounds": 1, "holes": 1} if quick else {"rounds": 5, "holes": 1}, LINE, tls=True)]


def combine(outcomes: Outcomes) -> Result:
    ((step, measured),) = outcomes
    found: dict[str, list[Gaps]] = measured or {}
    bars = [(PLANNED_MS, name, 0, "at a planned end") for name in (ROTATE, AGE)]
    bars.append((BLACK_HOLE_MS, ROTATE, 1, "in a black hole"))
    return Result(
        name="endings",
        title="Audio at a planned end and in a black hole",
        note=f"Over TLS and a line of {step.round_trip * 1e3:g} ms. The silence at a planned end "
        "is what the gateway hears above the 50 ms of a chunk. A loop that hands over by max_age "
        f"meets a black hole as one that does by rotate(). Rounds: {step.arguments['rounds']}, and "
        f"{step.arguments['holes']} black hole, for which {PATIENCE:g} s are waited.",
        columns=[
            Column("median ms at a planned end", 1),
            Column("worst ms at a planned end", 1),
            Column("ms in a black hole", 0),
        ],
        rows={
            name: [
                *summary(found[name][0]),
                summary(found[name][1])[0] if found[name][1] else "-",
            ]
            if name in found
            else [None if measured is None else NOT_INSTALLED] * 3
            for name in PLANNED
        },
        targets=[
            Bar(
                f"{name}: at most {most:g} ms {where}",
                median(found[name][column]) if name in found else None,
                most,
            )
            for most, name, column, where in bars
        ],
    )


MEASUREMENT = Measurement(__name__, "audio at planned ends", steps, combine)
