"""What a soak counted, and whether it leaked. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import linear_regression

from benchmarks.results import Target

MOST_BYTES, CYCLES_OF_BYTES = 100 * 1024, 20_000
MOST_LAG_MS = 20.0
WARM_UP_SHARE = 0.2
LEAST_CYCLES = 5_000
"""Fewer than these after the warm-up say nothing of memory, which comes and goes in arenas."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment. A cycle is a connection that was opened and is closed or used.

    ``sockets`` are the gateway's; the rest is of the client's process.
    """

    seconds: float
    cycles: int
    sockets: int
    tasks: int
    descriptors: int
    resident_bytes: int


@dataclass(frozen=True)
class Soak:
    """One soak.

    ``before`` and ``after`` are without a single stream; ``during`` are at even intervals.
    """

    before: Sample
    during: Sequence[Sample]
    after: Sample
    slots_lost: int
    lag_p99_ms: float
    faults: dict[str, int] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)


def judge(soak: Soak) -> list[Target]:
    """What must hold, with what was found."""
    before, after = soak.before, soak.after
    return [
        Target("sockets gained", after.sockets - before.sockets, 0),
        Target("tasks gained", after.tasks - before.tasks, 0),
        Target("descriptors gained", after.descriptors - before.descriptors, 0),
        Target("connector slots lost", soak.slots_lost, 0),
        Target(
            f"bytes gained in {CYCLES_OF_BYTES:,} cycles, after the warm-up",
            bytes_gained(soak.during),
            MOST_BYTES,
        ),
        Target("loop lag, p99, ms", soak.lag_p99_ms, MOST_LAG_MS),
    ]


def bytes_gained(during: Sequence[Sample]) -> float | None:
    """The slope of memory over cycles, None where these are too few to tell."""
    if not during:
        return None
    warm = [one for one in during if one.cycles >= WARM_UP_SHARE * during[-1].cycles]
    if warm[-1].cycles - warm[0].cycles < LEAST_CYCLES:
        return None
    slope = linear_regression(
        [one.cycles for one in warm], [one.resident_bytes for one in warm]
    ).slope
    return slope * CYCLES_OF_BYTES


class Lags:
    """How late the event loop ran things, in buckets, so that a long soak holds no more."""

    BUCKET_MS, BUCKETS = 0.1, 10_000

    def __init__(self) -> None:
        self._counts = [0] * (self.BUCKETS + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        bucket = math.ceil(seconds * 1e3 / self.BUCKET_MS)
        self._counts[min(max(bucket, 0), self.BUCKETS)] += 1

    def percentile(self, share: float) -> float:
        """The lag in ms that ``share`` of them were not above, rounded up; NaN without any."""
        total = sum(self._counts)
        if not total:
            return math.nan
        seen = accumulate(self._counts)
        bucket = next(bucket for bucket, count in enumerate(seen) if count >= share * total)
        return bucket * self.BUCKET_MS
