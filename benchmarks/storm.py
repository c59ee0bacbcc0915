"""How a gateway is dialled by a million clients that lose it at once. Simulated, not measured.

    python -m benchmarks --only storm
    python benchmarks/storm.py --clients 1000000 --outage 60

Every client has long been connected at second 0, when the gateway goes away; a dial during
the outage fails at once, the first one after it succeeds. The dials of each policy are
counted by the second. The neighbours' delays are written down from their releases:
livekit-agents 1.8.9, websockets 17.4, pipecat-ai 1.14.0.

The clients live 50 in a process. This package's share what they know of the gateway, which is
shown beside the same without sharing and beside two retry budgets that a process may have
instead, of which each redial, after a client's first, takes a token: AWS's (500 tokens, 14 a
redial, given back by successes alone) and Finagle's (10 tokens a second and a fifth of one for
each client, kept for 10 s). A client that finds none gives up.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import chain, islice

from agent_conn import RetryPolicy
from agent_conn._reconnect.health import SPREAD, probe_interval
from benchmarks.far import Far
from benchmarks.measurement import Measurement, Outcomes, Step, Tell
from benchmarks.results import Cell, Column, Curves, Result

BARS = " ▁▂▃▄▅▆▇█"
PLOTTED_SECONDS = 100
CLIENTS, OUTAGE = 1_000_000, 60.0
A_PROCESS = 50
Random = Callable[[], float]


def agent_conn(draw: Random) -> Iterator[float]:
    """The first redial at once, then full jitter under a doubling ceiling."""
    policy = RetryPolicy()
    backoff = (draw() * ceiling for ceiling in policy.ceilings())
    return islice(chain((0.0,), backoff), policy.attempts)


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
    late: float = 0.0
    """Seconds from the end of the outage to each client's return, added up."""
    returned: int = 0

    def back(self, late: float) -> None:
        """A client is connected again, so long after the outage."""
        self.late += late
        self.returned += 1

    @property
    def mean_late(self) -> float:
        """The mean of the seconds from the end of the outage to a client's return."""
        return self.late / self.returned if self.returned else math.nan

    def figures(self, outage: float) -> tuple[int, int, float, str]:
        """Dials, the peak second after the outage, that by the mean there, the last second."""
        after = {second: count for second, count in self.by_second.items() if second >= outage}
        if not after:
            return self.by_second.total(), 0, 0.0, "-"
        mean = sum(after.values()) / (max(after) + 1 - math.floor(outage))
        peak = max(after.values())
        return self.by_second.total(), peak, peak / mean, str(max(after))


def simulate(delays: Callable[[Random], Iterator[float]], clients: int, outage: float) -> Load:
    """Each client for itself."""
    load, draw = Load(), random.Random(1).random  # noqa: S311  (dice, no secret)
    for _ in range(clients):
        at = 0.0
        for delay in delays(draw):
            at += delay
            load.by_second[int(at)] += 1
            if at >= outage:
                load.back(at - outage)
                break
        else:
            load.lost += 1
    return load


def simulate_shared(clients: int, outage: float) -> Load:
    """The clients of a process share their health: see ``agent_conn/_reconnect/health.py``."""
    load, draw = Load(), random.Random(1).random  # noqa: S311  (dice, no secret)
    for _ in range(clients // A_PROCESS):
        # All redial at once, and more than FAILURES of them fail.
        load.by_second[0] += A_PROCESS
        at = 0.0
        while at < outage:
            at += probe_interval(at, draw)
            load.by_second[int(at)] += 1
        load.back(at - outage)
        for _ in range(A_PROCESS - 1):
            follows = at + draw() * SPREAD
            load.by_second[int(follows)] += 1
            load.back(follows - outage)
    return load


@dataclass
class Tokens:
    """The retry budget of a process."""

    left: float
    cost: float
    a_second: float = 0.0
    most: float = math.inf
    at: float = 0.0

    def take(self, at: float) -> bool:
        """Take what a redial costs; whether there was as much."""
        self.left = min(self.most, self.left + (at - self.at) * self.a_second)
        self.at = at
        if self.left < self.cost:
            return False
        self.left -= self.cost
        return True


def aws() -> Tokens:
    """The bucket of the AWS SDKs' standard mode."""
    return Tokens(left=500.0, cost=14.0)


def finagle() -> Tokens:
    """Finagle's default RetryBudget."""
    return Tokens(left=0.2 * A_PROCESS + 10.0, cost=1.0, a_second=10.0, most=100.0)


def simulate_tokens(make: Callable[[], Tokens], clients: int, outage: float) -> Load:
    """The clients of a process take their redials from one bucket of tokens."""
    load, draw = Load(), random.Random(1).random  # noqa: S311  (dice, no secret)
    for _ in range(clients // A_PROCESS):
        tokens = make()
        waiting = [(0.0, number, agent_conn(draw)) for number in range(A_PROCESS)]
        while waiting:
            at, number, delays = heappop(waiting)
            delay = next(delays, None)
            if delay is None or (at + delay > 0 and not tokens.take(at)):
                load.lost += 1
                continue
            at += delay
            load.by_second[int(at)] += 1
            if at >= outage:
                load.back(at - outage)
            else:
                heappush(waiting, (at, number, delays))
    return load


def plot(load: Load, clients: int) -> str:
    """A bar a second, its height the logarithm of the dials, the highest for all clients."""
    heights = (math.log1p(load.by_second[at]) for at in range(PLOTTED_SECONDS))
    most = math.log1p(clients)
    return "".join(BARS[min(8, math.ceil(8 * height / most))] for height in heights)


POLICIES: dict[str, Callable[[int, float], Load]] = {
    "agent_conn": simulate_shared,
    "agent_conn, not shared": partial(simulate, agent_conn),
    "with AWS's tokens": partial(simulate_tokens, aws),
    "with Finagle's tokens": partial(simulate_tokens, finagle),
    "livekit-agents": partial(simulate, livekit),
    "websockets": partial(simulate, websockets),
    "pipecat-ai": partial(simulate, pipecat),
}


async def measure(_: Far, tell: Tell, *, clients: int, outage: float) -> dict[str, list[Cell]]:
    """By policy, its figures, followed by its dials in each second that is plotted."""
    found: dict[str, list[Cell]] = {}
    for done, (name, play) in enumerate(POLICIES.items()):
        tell(done / len(POLICIES))
        load = play(clients, outage)
        dials, peak, ratio, last = load.figures(outage)
        late = load.mean_late if load.returned else "-"
        gave_up = 100 * load.lost / clients
        seconds = (load.by_second[second] for second in range(PLOTTED_SECONDS))
        found[name] = [dials / clients, load.by_second[0], peak, ratio, late, last, gave_up]
        found[name] += seconds
    return found


def steps(*, quick: bool) -> list[Step]:
    return [Step({"clients": 10_000 if quick else CLIENTS, "outage": OUTAGE})]


def combine(outcomes: Outcomes) -> Result:
    ((step, found),) = outcomes
    columns = [
        Column("dials a client", 1),
        Column("in the first second", 0),
        Column("peak second after the outage", 0),
        Column("peak by mean", 1),
        Column("mean s until back", 1),
        Column("last second of a dial", 0),
        Column("% gave up", 1),
    ]
    plotted = list(range(PLOTTED_SECONDS))
    return Result(
        name="storm",
        title="Clients that lose their gateway at once",
        note=f"{step.arguments['clients']:,} of them, {step.arguments['outage']:g} s without a "
        f"gateway, {A_PROCESS} in a process; simulated from the policies of the releases that the "
        "file names.",
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
        loads = {name: play(options.clients, outage) for name, play in POLICIES.items()}
        spent = time.perf_counter() - began
        print(f"\n{options.clients:,} clients, {outage:g} s without a gateway ({spent:.0f} s)\n")
        print("policy                  dials     in the     peak second  peak/mean  mean s   last")
        print(
            "                        a client  1st second after it     after it   to back  gave up"
        )
        for name, load in loads.items():
            dials, peak, ratio, last = load.figures(outage)
            lost = load.lost / options.clients
            print(
                f"{name:23} {dials / options.clients:<9.2f} {load.by_second[0]:<10,} {peak:<12,} "
                f"{ratio:<10.2f} {load.mean_late:<8.2f} {last} {lost:.2%}"
            )
        print("\nsecond       " + "".join(f"{name:>24}" for name in loads))
        shown = sorted({*range(12), *range(int(outage) - 2, int(outage) + 24, 2)})
        for second in shown:
            row = "".join(f"{load.by_second[second]:24,}" for load in loads.values())
            print(f"{second:<13}{row}")
        print(f"\ndials a second, 0 to {PLOTTED_SECONDS} s, in logarithms")
        for name, load in loads.items():
            print(f"{name:23} {plot(load, options.clients)}")


if __name__ == "__main__":
    main()
