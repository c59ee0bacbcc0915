"""Resident memory of an idle connection at the client's side.

    python -m benchmarks --only memory

Each peer opens a thousand in a fresh process, the gateway in another, and the growth of the
resident set since before them is divided among them. Without TLS.
"""

from __future__ import annotations

import gc
import statistics

import psutil

from benchmarks.far import Far
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, counted, pick
from benchmarks.peers import NOT_INSTALLED, PEERS, installed, place
from benchmarks.results import Cell, Column, Result

WARM_UP = 50


async def measure(far: Far, tell: Tell, *, peer: str, size: int) -> float | None:
    """Bytes a connection; None where the peer is not installed."""
    if peer not in installed():
        return None
    async with place(far) as here:
        for one in [await PEERS[peer](here)() for _ in range(WARM_UP)]:
            await one.close()
        # What a dial needs before it is made is not the connection's.
        dials = [PEERS[peer](here) for _ in range(size)]
        before = resident()
        opened = [await dials[number]() for number in counted(size, tell)]
        grown = resident() - before
        for one in opened:
            await one.close()
    return grown / size


def resident() -> int:
    gc.collect()
    found: int = psutil.Process().memory_info().rss
    return found


def steps(*, quick: bool) -> list[Step]:
    rounds, size = (1, 200) if quick else (3, 1_000)
    return [Step({"peer": peer, "size": size}) for _ in range(rounds) for peer in PEERS]


def combine(outcomes: Outcomes) -> Result:
    rows: dict[str, list[Cell]] = {}
    for name in PEERS:
        grown = list(pick(outcomes, peer=name))
        rows[name] = [statistics.median(grown) / 1024 if grown else NOT_INSTALLED]
    size = outcomes[0][0].arguments["size"]
    return Result(
        name="memory",
        title="Memory of an idle connection",
        note=f"Growth of the client's resident set over {size:,} connections without TLS, "
        "divided by their number.",
        columns=[Column("KiB a connection", 1)],
        rows=rows,
    )


MEASUREMENT = Measurement(__name__, "memory a connection", steps, combine)
