"""What a connection costs among few and among many that wait for one room.

    python -m benchmarks --only fanout

All wait in one process and one session, with ``TCPConnector(limit=0)``: each that waits holds a
dialled connection, and aiohttp's default of 100 would have the others dial after the room. They
get 60 s to open, since thousands of upgrades at once take one CPU longer than the default 10 s
may be. The gateway is a process of its own. Without TLS.

It is measured twice: as Python is, and with its full garbage collections made rare, since these
go through every object of the process, and come the oftener the more connections there are.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from agent_conn import InferenceConnection
from benchmarks.far import RARE_COLLECTIONS, Far, raise_descriptor_limit
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, counted, pick
from benchmarks.peers import BARE, IDENTITY, OURS, PEERS, TOKEN, place
from benchmarks.results import Cell, Column, Curves, Result, Target

SIZES = (10, 100, 1_000, 9_000)
LEAST_OPENED = 1_000
SPARE_DESCRIPTORS = 200
OPEN_TIMEOUT = 60.0
NOISE = 1.05
"""What the growth of two runs of one peer differs by on this machine."""
RARELY = f"{OURS}, collecting rarely"


@dataclass
class Meter:
    """CPU of this process, and that of the garbage collector in it."""

    collector: float = 0.0
    _began: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the collector's share while entered."""
        gc.callbacks.append(self._note)
        try:
            yield
        finally:
            gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        now = time.process_time()
        if phase == "start":
            self._began = now
        else:
            self.collector += now - self._began


@dataclass(frozen=True)
class Cost:
    """Microseconds of one connection.

    ``waiting`` and ``opening`` are CPU before and after the room connects, ``collector`` is the
    garbage collector's in both, and ``wall`` the time from the room to the last open.
    """

    waiting: float
    opening: float
    collector: float
    wall: float

    @property
    def cpu(self) -> float:
        """CPU in all."""
        return self.waiting + self.opening


async def wait_and_open(far: Far, size: int) -> Cost:
    room, meter = asyncio.Event(), Meter()
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
        with meter.running():
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
    return _each(size, connected - began, ended - connected, meter.collector, wall)


async def dial_at_once(far: Far, size: int) -> Cost:
    meter = Meter()
    async with place(far) as here:
        dials = [PEERS[BARE](here) for _ in range(size)]
        with meter.running():
            began, started = time.process_time(), time.perf_counter()
            opened = await asyncio.gather(*(dial() for dial in dials))
            wall, cpu = time.perf_counter() - started, time.process_time() - began
        await asyncio.gather(*(one.close() for one in opened))
    return _each(size, 0.0, cpu, meter.collector, wall)


def _each(size: int, *seconds: float) -> Cost:
    return Cost(*(one / size * 1e6 for one in seconds))


WAYS = {OURS: wait_and_open, RARELY: wait_and_open, BARE: dial_at_once}


async def measure(far: Far, tell: Tell, *, peer: str, size: int) -> dict[str, float] | str:
    """The median over as many repetitions as open a thousand, or why there is none."""
    most = raise_descriptor_limit()
    if size + SPARE_DESCRIPTORS > most:
        return f"{most:,} descriptors a process"
    if peer == RARELY:
        gc.set_threshold(*RARE_COLLECTIONS)
    await WAYS[peer](far, min(SIZES))
    costs = []
    for _ in counted(max(1, LEAST_OPENED // size), tell):
        await far.ask("idle")
        gc.collect()
        costs.append(asdict(await WAYS[peer](far, size)))
    return asdict(_median(costs))


def _median(costs: list[dict[str, float]]) -> Cost:
    return Cost(*(statistics.median(one[name] for one in costs) for name in costs[0]))


def steps(*, quick: bool) -> list[Step]:
    rounds, sizes = (1, SIZES[:2]) if quick else (5, SIZES)
    return [
        Step({"peer": peer, "size": size}) for _ in range(rounds) for size in sizes for peer in WAYS
    ]


def combine(outcomes: Outcomes) -> Result:
    rows: dict[str, list[Cell]] = {}
    costs: dict[str, dict[int, Cost]] = {peer: {} for peer in WAYS}
    for peer in WAYS:
        for size in SIZES:
            found = list(pick(outcomes, peer=peer, size=size))
            row = f"{size:,} of {peer}"
            if not found or isinstance(found[0], str):
                rows[row] = [found[0] if found else None] * 5
                continue
            cost = costs[peer][size] = _median(found)
            waiting: Cell = "-" if peer == BARE else cost.waiting
            rows[row] = [waiting, cost.opening, cost.cpu, cost.collector, cost.wall]
    ours, bare = costs[OURS], costs[BARE]
    return Result(
        name="fanout",
        title="Connections that wait for one room",
        note="In one process and one session, whose connector has no limit, without TLS. aiohttp's "
        "are dialled at once when the room connects. Figures are for one connection. Python's full "
        "garbage collections go through every object of the process, and make the growth; "
        f'"collecting rarely" is with `gc.set_threshold{RARE_COLLECTIONS}` in the process.',
        columns=[
            Column("µs of CPU until the room", 0),
            Column("after it", 0),
            Column("in all", 0),
            Column("of that the garbage collector's", 0),
            Column("µs of time, room to last open", 0),
        ],
        rows=rows,
        targets=[
            _target("CPU", ours, bare, lambda cost: cost.cpu),
            _target("CPU without the collector's", ours, bare, _own_cpu),
            _target("time", ours, bare, lambda cost: cost.wall),
        ],
        curves=Curves(
            "connections",
            "µs of CPU a connection",
            {
                name: (list(found), [cost.cpu for cost in found.values()])
                for name, found in costs.items()
            },
            "x",
        ),
    )


def _own_cpu(cost: Cost) -> float:
    return cost.cpu - cost.collector


def _target(
    what: str, ours: dict[int, Cost], bare: dict[int, Cost], figure: Callable[[Cost], float]
) -> Target:
    """The growth from 1,000 connections to 9,000 is aiohttp's own in the same run, or less."""
    growth = _growth(bare, figure)
    return Target(
        f"{what}: growth from 1,000 to 9,000 at most {NOISE} of aiohttp's",
        _growth(ours, figure),
        None if growth is None else NOISE * growth,
    )


def _growth(costs: dict[int, Cost], figure: Callable[[Cost], float]) -> float | None:
    if 1_000 not in costs or 9_000 not in costs:
        return None
    return figure(costs[9_000]) / figure(costs[1_000])


MEASUREMENT = Measurement(__name__, "fan-out", steps, combine)
