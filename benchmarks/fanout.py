"""What a connection costs among few and among many that wait for one room.

    python -m benchmarks --only fanout

All wait in one process and one session, with ``TCPConnector(limit=0)``: each that waits holds a
dialled connection, and aiohttp's default of 100 would have the others dial after the room. They
get 60 s to open, since thousands of upgrades at once take one CPU longer than the default 10 s
may be. The gateway is a process of its own. Without TLS.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time

from agent_conn import InferenceConnection
from benchmarks.far import Far, raise_descriptor_limit
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, counted, pick
from benchmarks.peers import IDENTITY, TOKEN, place
from benchmarks.results import Cell, Column, Curves, Result, Target

SIZES = (10, 100, 1_000, 9_000)
LEAST_OPENED = 1_000
SPARE_DESCRIPTORS = 200
OPEN_TIMEOUT = 60.0
MOST_OF_A_THOUSAND = 1.25

Cost = tuple[float, float, float]
"""Microseconds a connection: CPU until the room connects, CPU after it, time after it."""


async def fan_out(far: Far, size: int) -> Cost:
    room = asyncio.Event()
    async with place(far) as here:
        connections = [
            InferenceConnection(
                here.session,
                far.url(),
                identity=IDENTITY,
                token=TOKEN,
                room_connected=room,
                connect_wait=None,
                open_timeout=OPEN_TIMEOUT,
            )
            for _ in range(size)
        ]
        began = time.process_time()
        opening = asyncio.gather(*connections)
        held = await far.ask("holding", sockets=size, patience=OPEN_TIMEOUT)
        connected, started = time.process_time(), time.perf_counter()
        room.set()
        await opening
        wall, ended = time.perf_counter() - started, time.process_time()
        await asyncio.gather(*(connection.aclose() for connection in connections))
    if not held:
        raise SystemExit(f"{size} were not dialled in {OPEN_TIMEOUT:g} s")
    if not all(connection.record.pre_dialed for connection in connections):
        raise SystemExit("a pre-dial was lost; the figure would be a cold dial's")
    await far.ask("idle")
    cost = (connected - began, ended - connected, wall)
    return tuple(seconds / size * 1e6 for seconds in cost)  # type: ignore[return-value]


async def measure(far: Far, tell: Tell, *, size: int) -> Cost | str:
    """The median over as many repetitions as open a thousand, or why there is none."""
    most = raise_descriptor_limit()
    if size + SPARE_DESCRIPTORS > most:
        return f"{most:,} descriptors a process"
    await fan_out(far, min(SIZES))
    costs = []
    for _ in counted(max(1, LEAST_OPENED // size), tell):
        gc.collect()
        costs.append(await fan_out(far, size))
    return _medians(costs)


def _medians(costs: list[Cost]) -> Cost:
    waiting, opening, wall = map(statistics.median, zip(*costs, strict=True))
    return waiting, opening, wall


def steps(*, quick: bool) -> list[Step]:
    sizes = SIZES[:3] if quick else SIZES
    return [Step({"size": size}) for _ in range(1 if quick else 5) for size in sizes]


def combine(outcomes: Outcomes) -> Result:
    rows: dict[str, list[Cell]] = {}
    costs: dict[int, tuple[float, float]] = {}
    for size in SIZES:
        found = list(pick(outcomes, size=size))
        reasons = [one for one in found if isinstance(one, str)]
        if not found or reasons:
            rows[f"{size:,}"] = [reasons[0] if reasons else None] * 4
            continue
        waiting, opening, wall = _medians(found)
        rows[f"{size:,}"] = [waiting, opening, waiting + opening, wall]
        costs[size] = (waiting + opening, wall)
    return Result(
        name="fanout",
        title="Connections that wait for one room",
        note="In one process and one session, whose connector has no limit, without TLS.",
        columns=[
            Column("µs of CPU a connection, until the room", 0),
            Column("after it", 0),
            Column("in all", 0),
            Column("µs of time a connection, room to last open", 0),
        ],
        rows=rows,
        targets=[
            _target("CPU", {size: cpu for size, (cpu, _) in costs.items()}),
            _target("time", {size: wall for size, (_, wall) in costs.items()}),
        ],
        curves=Curves(
            "connections",
            "µs a connection",
            {
                "CPU in all": (list(costs), [cpu for cpu, _ in costs.values()]),
                "time, room to last open": (list(costs), [wall for _, wall in costs.values()]),
            },
            "x",
        ),
    )


def _target(what: str, costs: dict[int, float]) -> Target:
    at_most = MOST_OF_A_THOUSAND * costs[1_000] if 1_000 in costs else None
    return Target(
        f"{what} at 9,000 at most {MOST_OF_A_THOUSAND} of that at 1,000", costs.get(9_000), at_most
    )


MEASUREMENT = Measurement(__name__, "fan-out", steps, combine)
