"""The soak: what it calls a leak, and that a short one runs."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.far import ROOT
from benchmarks.soak_verdict import Lags, Sample, Soak, bytes_gained, judge

BEFORE = Sample(0.0, 0, sockets=0, tasks=3, descriptors=9, resident_bytes=50_000_000)
AFTER = replace(BEFORE, seconds=1800.0, cycles=60_000)


def growing(bytes_a_cycle: float, cycles: int = 60_000) -> list[Sample]:
    """Memory that grows fast in the first fifth, and then as told."""
    samples = []
    for number in range(1, 101):
        at = number * cycles // 100
        base = 60_000_000 if number >= 20 else 50_000_000 + number * 500_000
        samples.append(Sample(18.0 * number, at, 200, 400, 210, base + round(at * bytes_a_cycle)))
    return samples


CLEAN = Soak(BEFORE, growing(0.0), AFTER, slots_lost=0, lag_p99_ms=5.0)


def broken(soak: Soak) -> list[str]:
    return [target.claim for target in judge(soak) if target.holds is False]


def test_a_soak_that_gains_nothing_holds_everything() -> None:
    assert [target.holds for target in judge(CLEAN)] == [True] * 6


@pytest.mark.parametrize("what", ["sockets", "tasks", "descriptors"])
def test_one_of_a_counter_gained_is_a_leak(what: str) -> None:
    left: dict[str, Any] = {what: getattr(BEFORE, what) + 1}
    assert broken(replace(CLEAN, after=replace(AFTER, **left))) == [f"{what} gained"]


def test_one_connector_slot_lost_is_a_leak() -> None:
    assert broken(replace(CLEAN, slots_lost=1)) == ["connector slots lost"]


@pytest.mark.parametrize(("bytes_a_cycle", "holds"), [(5.0, True), (5.3, False)])
def test_memory_may_grow_by_100_kib_in_20_000_cycles_after_the_warm_up(
    bytes_a_cycle: float, holds: bool
) -> None:
    soak = replace(CLEAN, during=growing(bytes_a_cycle))
    assert bytes_gained(soak.during) == pytest.approx(20_000 * bytes_a_cycle, rel=0.01)
    assert (broken(soak) == []) is holds


def test_memory_of_too_few_cycles_is_not_judged() -> None:
    few = growing(1000.0, cycles=5_000)
    assert bytes_gained(few) is None
    assert bytes_gained([]) is None
    assert broken(replace(CLEAN, during=few)) == []


def test_a_late_event_loop_is_told() -> None:
    assert broken(replace(CLEAN, lag_p99_ms=20.1)) == ["loop lag, p99, ms"]


def test_lags_give_their_percentile_in_tenths_of_a_millisecond() -> None:
    lags = Lags()
    for _ in range(98):
        lags.add(0.00151)
    lags.add(0.0199)
    lags.add(5.0)
    assert lags.percentile(0.98) == pytest.approx(1.6)
    assert lags.percentile(0.99) == pytest.approx(19.9)
    assert lags.percentile(1.0) == pytest.approx(1000.0)
    assert math.isnan(Lags().percentile(0.99))


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "benchmarks/soak.py", "--streams", "20", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_a_short_soak_leaves_nothing(tmp_path: Path) -> None:
    written = tmp_path / "soak.json"
    soak = await start("--minutes", "0.08", "--json", str(written))
    out, err = await soak.communicate()
    assert written.exists(), err.decode()
    done = json.loads(written.read_text(encoding="utf-8"))
    targets = {target["claim"]: target for target in done["targets"]}
    # How late the loop runs is the machine's; the rest is not.
    late = targets.pop("loop lag, p99, ms")
    assert [claim for claim, target in targets.items() if target["holds"] is False] == []
    assert soak.returncode == (0 if late["holds"] else 1)
    assert done["after"]["cycles"] >= 10
    assert max(sample["sockets"] for sample in done["during"]) > 10
    assert "sockets gained: holds (0, limit 0)" in out.decode()


async def test_an_interrupt_ends_a_soak_early_with_its_report() -> None:
    soak = await start("--minutes", "5")
    assert soak.stderr is not None
    assert b"cycles" in await soak.stderr.readline()
    soak.send_signal(signal.SIGINT)
    out, _ = await soak.communicate()
    assert soak.returncode in (0, 1)
    assert "sockets gained: holds (0, limit 0)" in out.decode()
