"""Milliseconds to open where the first of two endpoints is a black hole, over TLS.

    python -m benchmarks --only endpoints

The black hole is an address on the far network that nobody has: no packet to it is answered. A
round trip is the median time of a TCP connect on the same line in the same run. No neighbour takes
more than one URL: there the caller waits for its own timeout, such as websockets' 10 s, first.
"""

from __future__ import annotations

import asyncio
import statistics
from functools import partial

from agent_conn import Endpoints, InferenceConnection
from benchmarks.far import Far
from benchmarks.line import FAR_ADDRESS
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, in_turns
from benchmarks.peers import IDENTITY, TOKEN, place
from benchmarks.predial import TCP, Milliseconds, tcp_connect
from benchmarks.results import Cell, Column, Result, Target

ROUND_TRIPS_MS = (80,)
NOBODY = FAR_ADDRESS.rpartition(".")[0] + ".9"
HEAD_START_MS, MOST_ROUND_TRIPS = 250.0, 3.2
URL, FIRST_ANSWERS = "a URL", "two endpoints that answer"
BLACK_HOLE, AFTER_IT = "the first a black hole", "the same, its next open"
WAYS = (URL, FIRST_ANSWERS, BLACK_HOLE, AFTER_IT)


async def opening(far: Far, way: str) -> float:
    """The time of one open in one of the ``WAYS``."""
    good, hole = far.url(), f"wss://{NOBODY}:{far.port}/v1/echo"
    both = [good, hole] if way == FIRST_ANSWERS else [hole, good]
    url = good if way == URL else Endpoints(both)
    now = asyncio.get_running_loop().time
    async with place(far) as here:

        async def once() -> float:
            started = now()
            connection = InferenceConnection(here.session, url, identity=IDENTITY, token=TOKEN)
            async with connection:
                return (now() - started) * 1e3

        if way == AFTER_IT:
            await once()
        return await once()


async def measure(far: Far, tell: Tell, *, rounds: int) -> Milliseconds:
    ways = {TCP: partial(tcp_connect, far)} | {way: partial(opening, far, way) for way in WAYS}
    return await in_turns(ways, rounds, tell)


def steps(*, quick: bool) -> list[Step]:
    rounds = 2 if quick else 15
    return [Step({"rounds": rounds}, line / 1e3, tls=True) for line in ROUND_TRIPS_MS]


def combine(outcomes: Outcomes) -> Result:
    """A line's medians in each column."""
    medians: list[dict[str, float]] = [
        {name: statistics.median(times) for name, times in (found or {}).items()}
        for _, found in outcomes
    ]
    rows: dict[str, list[Cell]] = {
        name: [one.get(name) for one in medians] for name in (*WAYS, TCP)
    }
    lines = [round(step.round_trip * 1e3) for step, _ in outcomes]
    return Result(
        name="endpoints",
        title="Opening where the first endpoint is a black hole",
        note="Median, over TLS, cold. The black hole answers no packet.",
        columns=[Column(f"ms at {line} ms", 1) for line in lines],
        rows=rows,
        targets=[
            target
            for line, one in zip(lines, medians, strict=True)
            for target in _targets(line, one)
        ],
    )


def _targets(line: int, medians: dict[str, float]) -> list[Target]:
    trip = medians.get(TCP)
    open_cold = None if trip is None else MOST_ROUND_TRIPS * trip
    return [
        Target(
            f"at {line} ms: at most {HEAD_START_MS:g} ms and {MOST_ROUND_TRIPS} round trips",
            medians.get(BLACK_HOLE),
            None if open_cold is None else HEAD_START_MS + open_cold,
        ),
        Target(
            f"at {line} ms, its next open: at most {MOST_ROUND_TRIPS} round trips",
            medians.get(AFTER_IT),
            open_cold,
        ),
    ]


MEASUREMENT = Measurement(__name__, "opening at the second endpoint", steps, combine)
