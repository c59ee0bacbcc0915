"""CPU of opening and closing a connection, ours and the neighbours', as a ratio to bare aiohttp.

    python -m benchmarks --only opening
    python benchmarks/opening.py

No TLS and no wait, on loopback, the gateway in a process of its own. Each connection is closed
before the next is opened. Batches take turns; in each round a batch gives a ratio to that round's
bare one, and the median of the ratios counts. Only this process's CPU is counted.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks.far import Far, far_process, reach
from benchmarks.loops import add_loop_option, run_on_loop
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, in_turns, pick
from benchmarks.peers import BARE, NOT_INSTALLED, OURS, PEERS, Opener, Place, installed, place
from benchmarks.results import Cell, Column, Result, Target

MOST_OF_BARE = 1.10
LIVEKIT, PIPECAT, WEBSOCKETS = "livekit-agents", "pipecat-ai", "websockets"


async def batch(here: Place, peer: Callable[[Place], Opener], size: int) -> float:
    """Microseconds of CPU of one open and its close, over ``size`` of them."""
    dials = [peer(here) for _ in range(size)]
    started = time.process_time()
    for dial in dials:
        opened = await dial()
        await opened.close()
    return (time.process_time() - started) / size * 1e6


async def measure(far: Far, tell: Tell, *, rounds: int, size: int) -> dict[str, list[float]]:
    async with place(far) as here:
        ways = {name: partial(batch, here, PEERS[name], size) for name in installed()}
        return await in_turns(ways, rounds, tell)


def steps(*, quick: bool) -> list[Step]:
    return [Step({"rounds": 3 if quick else 100, "size": 10 if quick else 30})]


def combine(outcomes: Outcomes) -> Result:
    """The median of each peer, and of its ratios to the bare one."""
    found: dict[str, list[float]] = next(iter(pick(outcomes)))
    ratios = {name: median_ratio(costs, found[BARE]) for name, costs in found.items()}
    rows: dict[str, list[Cell]] = {
        name: [statistics.median(found[name]), ratios[name]]
        if name in found
        else [NOT_INSTALLED, NOT_INSTALLED]
        for name in PEERS
    }
    return Result(
        name="opening",
        title="CPU of opening and closing a connection",
        note="Without TLS and without a wait; the ratio is the median over the rounds. "
        "livekit-agents mints a token and sends its first message with each.",
        columns=[Column("µs of CPU", 0), Column("ratio to aiohttp")],
        rows=rows,
        targets=[
            Target(f"at most {MOST_OF_BARE} of bare aiohttp", ratios[OURS], MOST_OF_BARE),
            *(
                Target(f"less than {name}", ratios[OURS], ratios.get(name))
                for name in (WEBSOCKETS, PIPECAT, LIVEKIT)
            ),
        ],
    )


def median_ratio(costs: Iterable[float], bare: Iterable[float]) -> float:
    return statistics.median(one / other for one, other in zip(costs, bare, strict=True))


MEASUREMENT = Measurement(__name__, "CPU of opening and closing", steps, combine)


async def by_hand(port: int, rounds: int, size: int) -> None:
    async with reach("127.0.0.1", port) as far:
        found = await measure(far, lambda _: None, rounds=rounds, size=size)
    for name, costs in found.items():
        ratio = median_ratio(costs, found[BARE])
        cost = f"{statistics.median(costs):7.0f} us of CPU an open and close"
        print(f"{name:16}{cost}, ratio {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100, help="rounds")
    parser.add_argument("--size", type=int, default=30, help="opens in a batch")
    add_loop_option(parser)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with far_process() as port:
        run_on_loop(by_hand(port, options.pairs, options.size), options.loop)


if __name__ == "__main__":
    main()
