"""CPU of sending a message and receiving its echo.

    python -m benchmarks --only messages

Each message is 50 ms of audio as LiveKit's protocol has it, 2.1 KB of JSON, one at a time over
one connection without TLS. livekit-agents gives its websocket to nobody, so it is not here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks.far import Far
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, in_turns, pick
from benchmarks.opening import median_ratio
from benchmarks.peers import BARE, NOT_INSTALLED, PEERS, installed, place
from benchmarks.recovery import AUDIO
from benchmarks.results import Cell, Column, Result

NO_WEBSOCKET = "gives out no websocket"


async def batch(echo: Callable[[str], Awaitable[object]], size: int) -> tuple[float, float]:
    """Seconds of CPU, and of time, of ``size`` round trips."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(size):
        await echo(AUDIO)
    return time.process_time() - cpu, time.perf_counter() - wall


async def measure(far: Far, tell: Tell, *, rounds: int, size: int) -> dict[str, list[list[float]]]:
    """By peer, the microseconds of CPU and of time of each round."""
    walls: dict[str, list[float]] = {}
    async with place(far) as here:
        opened = {name: await PEERS[name](here)() for name in installed()}

        async def one(name: str, echo: Callable[[str], Awaitable[object]]) -> float:
            cpu, wall = await batch(echo, size)
            walls.setdefault(name, []).append(wall / size * 1e6)
            return cpu / size * 1e6

        ways = {
            name: partial(one, name, open_.echo)
            for name, open_ in opened.items()
            if open_.echo is not None
        }
        cpus = await in_turns(ways, rounds, tell)
        for open_ in opened.values():
            await open_.close()
    # The first round warmed up.
    return {name: [cpus[name], walls[name][1:]] for name in ways}


def steps(*, quick: bool) -> list[Step]:
    return [Step({"rounds": 3 if quick else 40, "size": 100 if quick else 500})]


def combine(outcomes: Outcomes) -> Result:
    found: dict[str, list[list[float]]] = next(iter(pick(outcomes)))
    rows: dict[str, list[Cell]] = {}
    for name in PEERS:
        if name in found:
            cpu, wall = found[name]
            rows[name] = [
                statistics.median(cpu),
                median_ratio(cpu, found[BARE][0]),
                1e6 / statistics.median(wall),
            ]
        else:
            rows[name] = [NO_WEBSOCKET if name == "livekit-agents" else NOT_INSTALLED] * 3
    return Result(
        name="messages",
        title="Sending a message and receiving its echo",
        note="2.1 KB of JSON, one at a time, without TLS. agent_conn hands out aiohttp's own "
        "websocket; pipecat-ai's is that of websockets.",
        columns=[Column("µs of CPU", 0), Column("ratio to aiohttp"), Column("a second", 0)],
        rows=rows,
    )


MEASUREMENT = Measurement(__name__, "message path", steps, combine)
