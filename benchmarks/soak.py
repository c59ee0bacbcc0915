"""Streams under random faults, and whether anything is left of them.

    python benchmarks/soak.py --minutes 30

200 streams of 20 frames a second, STT, TTS and echo, four fifths of them through ``reconnect``
and the rest from a pool, in one process; the gateway is another. Every 1 to 5 s one fault
strikes: an open connection, the next handshake, or a stream, which is cancelled. A cycle is a
connection opened and closed, by the end of its turn, a fault or a cancellation. Ctrl-C ends it
early, with the report.

The exit status is 0 where, against the time before the first stream, no socket, task,
descriptor or connector slot was gained, memory grew by at most 100 KiB in 20,000 cycles after
the first fifth, and the event loop was not later than 20 ms in 99 of 100 looks, which are 10 ms
apart; else 1. Memory is not judged in a run of too few cycles.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import aiohttp
import psutil

from benchmarks.far import (
    HANDSHAKE_FAULTS,
    OPEN_FAULTS,
    Far,
    far_process,
    raise_descriptor_limit,
    reach,
)
from benchmarks.loops import add_loop_option, run_on_loop
from benchmarks.render import verdict
from benchmarks.soak_streams import Streams
from benchmarks.soak_verdict import Lags, Sample, Soak, judge

CANCEL = "cancelled stream"
FAULTS = (*OPEN_FAULTS, *HANDSHAKE_FAULTS, CANCEL)
FAULT_SECONDS = (1.0, 5.0)
LOOK_SECONDS = 0.01
SAMPLES = 180
SETTLE_SECONDS = 10.0


class Counters:
    """Reads the leak counters."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._process = psutil.Process()
        self._started = time.monotonic()

    async def sample(self, cycles: int) -> Sample:
        """Read them now."""
        sockets = await self._far.ask("sockets")
        return Sample(
            seconds=time.monotonic() - self._started,
            cycles=cycles,
            sockets=sockets,
            tasks=len(asyncio.all_tasks()),
            descriptors=self._process.num_fds(),
            resident_bytes=self._process.memory_info().rss,
        )

    async def settled(self, cycles: int, before: Sample) -> Sample:
        """Read them once nothing more than ``before`` is left, or ``SETTLE_SECONDS`` have passed.

        What was aborted is closed in a later turn of the event loop.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            gc.collect()
            now = await self.sample(cycles)
            gained = (
                now.sockets > before.sockets,
                now.tasks > before.tasks,
                now.descriptors > before.descriptors,
            )
            if not any(gained) or time.monotonic() >= deadline:
                return now
            await asyncio.sleep(0.05)


async def strike(far: Far, streams: Streams, seed: int, struck: Counter[str]) -> None:
    chance = random.Random(seed)  # noqa: S311  (dice)
    while True:
        await asyncio.sleep(chance.uniform(*FAULT_SECONDS))
        fault = chance.choice(FAULTS)
        if fault == CANCEL:
            await streams.restart_one()
        elif not await far.ask("strike", fault=fault, seed=chance.getrandbits(32)):
            continue
        struck[fault] += 1


async def watch(lags: Lags) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        lags.add(loop.time() - due)


async def slots_lost(far: Far, session: aiohttp.ClientSession, slots: int) -> int:
    """How many of the connector's slots can no longer be had: all are asked for at once."""
    asked = [asyncio.create_task(session.ws_connect(far.url()).__aenter__()) for _ in range(slots)]
    done, late = await asyncio.wait(asked, timeout=SETTLE_SECONDS)
    for one in late:
        one.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    opened = [one.result() for one in done if one.exception() is None]
    await asyncio.gather(*(ws.close() for ws in opened))
    return slots - len(opened)


@asynccontextmanager
async def beside(*works: asyncio.Task[None]) -> AsyncIterator[None]:
    """Have ``works`` run while entered; one that fails is raised on leaving."""
    try:
        yield
    finally:
        for work in works:
            work.cancel()
        for ended in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def soak(port: int, minutes: float, size: int, seed: int) -> Soak:
    over = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, over.set)
    # A better connection is opened beside the one that it takes over from.
    slots = 2 * size
    connector = aiohttp.TCPConnector(limit=slots)
    lags, struck, during = Lags(), Counter[str](), list[Sample]()
    async with reach("127.0.0.1", port) as far, aiohttp.ClientSession(connector=connector) as one:
        # What a process keeps of its first connections is not gained later.
        await slots_lost(far, one, slots)
        await far.ask("idle")
        counters = Counters(far)
        before = await counters.sample(0)
        streams = Streams(one, far.url, seed)
        for number in range(size):
            streams.start(number)
        async with beside(
            asyncio.create_task(strike(far, streams, seed, struck), name="soak.faults"),
            asyncio.create_task(watch(lags), name="soak.lags"),
        ):
            async for _ in every(minutes * 60, over):
                during.append(await counters.sample(streams.cycles))
                show(during[-1], minutes, struck, lags)
        await streams.aclose()
        await far.ask("idle")
        after = await counters.settled(streams.cycles, before)
        lost = await slots_lost(far, one, slots)
    return Soak(
        before, during, after, lost, lags.percentile(0.99), dict(struck), dict(streams.endings)
    )


async def every(seconds: float, over: asyncio.Event) -> AsyncIterator[None]:
    """Come ``SAMPLES`` times in ``seconds``, unless it is ``over`` before."""
    started = time.monotonic()
    for number in range(1, SAMPLES + 1):
        due = started + seconds * number / SAMPLES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due - time.monotonic()):
                await over.wait()
        yield
        if over.is_set():
            return


def show(now: Sample, minutes: float, struck: Counter[str], lags: Lags) -> None:
    print(
        f"{now.seconds / 60:5.1f} of {minutes:g} min: {now.cycles:,} cycles, "
        f"{struck.total()} faults, {now.sockets} sockets, {now.tasks} tasks, "
        f"{now.descriptors} descriptors, {now.resident_bytes / 2**20:.1f} MiB, "
        f"lag p99 {lags.percentile(0.99):.1f} ms  ",
        end="\r" if sys.stderr.isatty() else "\n",
        file=sys.stderr,
        flush=True,
    )


def report(done: Soak) -> str:
    """All of it as text."""
    after = done.after
    faults = ", ".join(f"{count} {name}" for name, count in sorted(done.faults.items()))
    endings = ", ".join(f"{count} {name}" for name, count in sorted(done.endings.items()))
    most = max((one.sockets for one in done.during), default=0)
    return "\n".join(
        [
            f"{after.cycles:,} cycles in {after.seconds:.0f} s, at most {most} sockets at once",
            f"faults: {faults or 'none'}",
            f"streams that ended by: {endings or 'none'}",
            *map(verdict, judge(done)),
        ]
    )


def main() -> int:
    """Return 0, or 1 where something was gained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there, too")
    add_loop_option(parser)
    options = parser.parse_args()
    if not options.minutes > 0 or options.streams < 1:
        parser.error("--minutes and --streams must be positive")
    # The faults make this package log, as they should.
    logging.disable(logging.CRITICAL)
    raise_descriptor_limit()
    with far_process() as port:
        done = run_on_loop(soak(port, options.minutes, options.streams, options.seed), options.loop)
    if options.json is not None:
        targets = [asdict(one) | {"holds": one.holds} for one in judge(done)]
        written = asdict(done) | {"seed": options.seed, "targets": targets}
        options.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(report(done))
    return 1 if any(one.holds is False for one in judge(done)) else 0


if __name__ == "__main__":
    sys.exit(main())
