"""Milliseconds from the room connecting to the websocket open, over TLS.

    python -m benchmarks --only predial

Or by hand, at the two ends of a line that you have:

    on the far machine:   python benchmarks/predial.py serve --host ADDRESS --port 8443
    on the near machine:  python benchmarks/predial.py --host ADDRESS --port 8443

agent_conn dials while it waits. A neighbour has no wait for a room, so it dials when the room
connects, as it must to send the agent's id. A round trip is the median time of a TCP connect on
the same line in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from collections.abc import Awaitable, Callable
from functools import partial

from agent_conn import InferenceConnection
from benchmarks.far import DEFAULT_PORT, Far, reach, serve
from benchmarks.loops import add_loop_option, run_on_loop
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, in_turns
from benchmarks.peers import (
    HEARTBEAT,
    IDENTITY,
    NOT_INSTALLED,
    OURS,
    PEERS,
    TOKEN,
    Opener,
    Place,
    installed,
    place,
)
from benchmarks.results import Cell, Column, Curves, Result, Target

ROUND_TRIPS_MS = (0, 20, 80, 200)
ROOM_AFTER_ROUND_TRIPS = 5
LEAST_WAIT = 0.05
MOST_ROUND_TRIPS, MOST_MS_ABOVE = 1.05, 3.0
TCP = "TCP connect"

Milliseconds = dict[str, list[float]]


async def tcp_connect(far: Far) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    _, writer = await asyncio.open_connection(far.host, far.port)
    elapsed = loop.time() - started
    writer.close()
    await writer.wait_closed()
    return elapsed * 1e3


async def when_connected(far: Far, peer: Callable[[Place], Opener]) -> float:
    async with place(far) as here:
        dial = peer(here)
        started = asyncio.get_running_loop().time()
        opened = await dial()
        elapsed = asyncio.get_running_loop().time() - started
        await opened.close()
    return elapsed * 1e3


async def ahead_of_the_room(far: Far) -> float:
    loop, room = asyncio.get_running_loop(), asyncio.Event()
    async with place(far) as here:
        connection = InferenceConnection(
            here.session,
            far.url(),
            identity=IDENTITY,
            token=TOKEN,
            heartbeat=HEARTBEAT,
            room_connected=room,
            connect_wait=None,
        )
        connected: list[float] = []

        def connect() -> None:
            # The loop's timers are up to a millisecond late, which is nobody's opening.
            connected.append(loop.time())
            room.set()

        loop.call_later(max(LEAST_WAIT, ROOM_AFTER_ROUND_TRIPS * far.rtt), connect)
        async with connection:
            elapsed = loop.time() - connected[0]
    if not connection.record.pre_dialed:
        raise SystemExit("the pre-dial was lost; the figure would be a cold dial's")
    return elapsed * 1e3


async def measure(far: Far, tell: Tell, *, rounds: int) -> Milliseconds:
    ways: dict[str, Callable[[], Awaitable[float]]] = {TCP: partial(tcp_connect, far)}
    for name in installed():
        ours = name == OURS
        ways[name] = (
            partial(ahead_of_the_room, far) if ours else partial(when_connected, far, PEERS[name])
        )
    return await in_turns(ways, rounds, tell)


def steps(*, quick: bool) -> list[Step]:
    rounds = 2 if quick else 15
    return [Step({"rounds": rounds}, line / 1e3, tls=True) for line in ROUND_TRIPS_MS]


def combine(outcomes: Outcomes) -> Result:
    """A line's medians in each column, and whether ours keeps what it promises."""
    medians = [_medians(found) for _, found in outcomes]
    rows: dict[str, list[Cell]] = {name: [_cell(one, name) for one in medians] for name in PEERS}
    rows[TCP] = [_cell(one, TCP) for one in medians]
    lines = [round(step.round_trip * 1e3) for step, _ in outcomes]
    return Result(
        name="predial",
        title="From the room connecting to the websocket open",
        note="Median, over TLS. agent_conn dials while it waits for the room; the others have no "
        "such wait, and dial when it connects. A TCP connect takes one round trip.",
        columns=[Column(f"ms at {line} ms", 1) for line in lines],
        rows=rows,
        targets=[
            target
            for line, one in zip(lines, medians, strict=True)
            for target in _targets(line, one)
        ],
        curves=Curves(
            "round trip of the line, ms",
            "ms from room to open",
            {
                name: (
                    [line for line, one in zip(lines, medians, strict=True) if name in one],
                    [one[name] for one in medians if name in one],
                )
                for name in PEERS
                if any(name in one for one in medians)
            },
        ),
    )


def _medians(found: Milliseconds | None) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in (found or {}).items()}


def _cell(medians: dict[str, float], name: str) -> Cell:
    # Without any figure the line itself was not to be had.
    return medians.get(name, NOT_INSTALLED if medians else None)


def _targets(line: int, medians: dict[str, float]) -> list[Target]:
    ours, trip = medians.get(OURS), medians.get(TCP)
    peers = [time for name, time in medians.items() if name not in (OURS, TCP)]
    return [
        Target(
            f"at {line} ms: at most {MOST_ROUND_TRIPS:.2f} round trips and {MOST_MS_ABOVE:g} ms",
            ours,
            None if trip is None else MOST_ROUND_TRIPS * trip + MOST_MS_ABOVE,
        ),
        Target(f"at {line} ms: less than every neighbour", ours, min(peers, default=None)),
    ]


MEASUREMENT = Measurement(__name__, "room connected to open", steps, combine)


async def by_hand(host: str, port: int, times: int) -> None:
    async with reach(host, port) as far:
        far.rtt = await tcp_connect(far) / 1e3
        found = await measure(far, lambda _: None, rounds=times)
    trip = statistics.median(found[TCP])
    for name, milliseconds in found.items():
        median = statistics.median(milliseconds)
        print(f"{name:16}{median:8.2f} ms  {median / trip:5.2f} round trips")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", choices=["measure", "serve"], default="measure")
    parser.add_argument("--host", default=os.environ.get("WAN_FAR", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("WAN_PORT", DEFAULT_PORT)))
    parser.add_argument("--times", type=int, default=15)
    add_loop_option(parser)
    options = parser.parse_args()
    if options.role == "serve":
        asyncio.run(serve(options.host, options.port, tls=True))
    else:
        run_on_loop(by_hand(options.host, options.port, options.times), options.loop)


if __name__ == "__main__":
    main()
