"""How a gateway is dialled by a million clients that lose it at once. Simulated, not measured.

    python -m benchmarks --only storm
    python benchmarks/storm.py --clients 1000000 --outage 60

Every client has a proven connection at second 0, when the gateway goes away; a dial during
the outage fails at once, the first one after it succeeds. The dials of each policy are
counted by the second. The neighbours' delays are written down from their releases:
livekit-agents 1.8.9, websockets 17.4, pipecat-ai 1.14.0.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from agent_conn import RetryPolicy
from benchmarks.far import Far
from benchmarks.measurement import Measurement, Outcomes, Step, Tell
from benchmarks.results import Cell, Column, Curves, Result

BARS = " ▁▂▃▄▅▆▇█"
PLOTTED_SECONDS = 100
CLIENTS, OUTAGE = 1_000_000, 60.0
Random = Callable[[], float]


def agent_conn(draw: Random) -> Iterator[float]:
    """The first redial at once, then full jitter under a doubling ceiling."""
    policy = RetryPolicy()
    return islice(chain((0.0,), policy.delays(draw)), policy.attempts)


def livekit(_: Random) -> Iterator[float]:
    """0.1 s, then 2 s flat; the stream fails after three retries."""
    return iter((0.1, 2.0, 2.0))


def websockets(draw: Random) -> Iterator[float]:
    """At once, then up to 5 s at random, then 3.1 s growing by 1.618 up to 90 s, for ever."""
    yield 0.0
    yield draw() * 5.0
    delay = 3.1
    while True:
        yield delay
        delay = min(delay * 1.618, 90.0)


def pipecat(_: Random) -> Iterator[float]:
    """At once, then 4 s flat; the service gives up after three attempts."""
    return iter((0.0, 4.0, 4.0))


@dataclass
class Load:
    """What one policy does to the gateway."""

    by_second: Counter[int] = field(default_factory=Counter)
    lost: int = 0

    def figures(self, outage: float) -> tuple[int, int, float, str]:
        """Dials, the peak second after the outage, that by the mean there, the last second."""
        after = {second: count for second, count in self.by_second.items() if second >= outage}
        if not after:
            return self.by_second.total(), 0, 0.0, "-"
        mean = sum(after.values()) / (max(after) + 1 - math.floor(outage))
        peak = max(after.values())
        return self.by_second.total(), peak, peak / mean, str(max(after))


def simulate(delays: Callable[[Random], Iterator[float]], clients: int, outage: float) -> Load:
    load, draw = Load(), random.Random(1).random  # noqa: S311  (dice, no secret)
    for _ in range(clients):
        at = 0.0
        for delay in delays(draw):
            at += delay
            load.by_second[int(at)] += 1
            if at >= outage:
                break
        else:
            load.lost += 1
    return load


def plot(load: Load, clients: int) -> str:
    """A bar a second, its height the logarithm of the dials, the highest for all clients."""
    heights = (math.log1p(load.by_second[at]) for at in range(PLOTTED_SECONDS))
    most = math.log1p(clients)
    return "".join(BARS[min(8, math.ceil(8 * height / most))] for height in heights)


POLICIES = {
    "agent_conn": agent_conn,
    "livekit-agents": livekit,
    "websockets": websockets,
    "pipecat-ai": pipecat,
}


async def measure(_: Far, tell: Tell, *, clients: int, outage: float) -> dict[str, list[Cell]]:
    """By policy, its figures, followed by its dials in each second that is plotted."""
    found: dict[str, list[Cell]] = {}
    for done, (name, delays) in enumerate(POLICIES.items()):
        tell(done / len(POLICIES))
        load = simulate(delays, clients, outage)
        dials, peak, ratio, last = load.figures(outage)
        gave_up = 100 * load.lost / clients
        seconds = (load.by_second[second] for second in range(PLOTTED_SECONDS))
        found[name] = [dials, peak, ratio, last, gave_up, *seconds]
    return found


def steps(*, quick: bool) -> list[Step]:
    return [Step({"clients": 10_000 if quick else CLIENTS, "outage": OUTAGE})]


def combine(outcomes: Outcomes) -> Result:
    ((step, found),) = outcomes
    columns = [
        Column("dials", 0),
        Column("peak second after the outage", 0),
        Column("peak by mean", 1),
        Column("last second of a dial", 0),
        Column("% gave up", 1),
    ]
    plotted = list(range(PLOTTED_SECONDS))
    return Result(
        name="storm",
        title="Clients that lose their gateway at once",
        note=f"{step.arguments['clients']:,} of them, {step.arguments['outage']:g} s without a "
        "gateway; simulated from the policies of the releases that the file names.",
        columns=columns,
        rows={name: cells[: len(columns)] for name, cells in found.items()},
        curves=Curves(
            "second",
            "dials a second",
            {name: (plotted, cells[len(columns) :]) for name, cells in found.items()},
            "y",
        ),
    )


MEASUREMENT = Measurement(__name__, "storm", steps, combine)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the redials after an outage.")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--outage", type=float, nargs="*", default=[3.0, OUTAGE], help="seconds")
    options = parser.parse_args()
    for outage in options.outage:
        began = time.perf_counter()
        loads = {name: simulate(one, options.clients, outage) for name, one in POLICIES.items()}
        spent = time.perf_counter() - began
        print(f"\n{options.clients:,} clients, {outage:g} s without a gateway ({spent:.0f} s)\n")
        print("policy           dials        peak second   peak/mean  last second  gave up")
        print("                 in all       after it      after it   of a dial")
        for name, load in loads.items():
            dials, peak, ratio, last = load.figures(outage)
            lost = load.lost / options.clients
            print(f"{name:16} {dials:<12,} {peak:<13,} {ratio:<10.1f} {last:<12} {lost:.2%}")
        print("\nsecond       " + "".join(f"{name:>16}" for name in loads))
        shown = sorted({*range(12), *range(int(outage) - 2, int(outage) + 24, 2)})
        for second in shown:
            row = "".join(f"{load.by_second[second]:16,}" for load in loads.values())
            print(f"{second:<13}{row}")
        print(f"\ndials a second, 0 to {PLOTTED_SECONDS} s, in logarithms")
        for name, load in loads.items():
            print(f"{name:16} {plot(load, options.clients)}")


if __name__ == "__main__":
    main()
