"""What a pooled connection costs, side by side with LiveKit's pool and with a dial per turn.

    python -m benchmarks --only pool
    python benchmarks/pool.py hit           CPU of a hit, as the median of pairs
    python benchmarks/pool.py slow          200 tasks at once, one of their dials slow
    python benchmarks/pool.py soak          60,000 cycles, each hundredth with a fault
    python benchmarks/pool.py server        the gateway for `turns`, with TLS
    python benchmarks/pool.py turns         seconds to a usable websocket, turn after turn

`server` and `turns` run at the two ends of a long line, and find each other as in
`benchmarks/far.py`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from agent_conn import ConnectionPool, InferenceConnection
from agent_conn.gateway import CloseWith, DropAfter, Fault, Gateway, Reset
from benchmarks.far import DEFAULT_PORT, Far, far_process, reach, serve
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, in_turns
from benchmarks.memory import resident
from benchmarks.opening import LIVEKIT
from benchmarks.peers import IDENTITY, NOT_INSTALLED, OURS, place, version
from benchmarks.render import as_text
from benchmarks.results import Cell, Column, Result

PAIRS, HITS = 40, 2_000
TASKS, SLOW_SECONDS = 200, 1.0
CYCLES, REPORT_EVERY = 60_000, 10_000
TURNS, PAUSE_SECONDS = 10, 0.2
LINE = 0.08
FAULTS: tuple[Fault, ...] = (DropAfter(), CloseWith(1011), Reset())
A_DIAL = "a dial per turn"
IDLE_SECONDS = 0.1
IN_TURN = ", one in each turn of the loop"
AFTER_IDLE = f", one after {IDLE_SECONDS:g} s idle"

WebSocket = aiohttp.ClientWebSocketResponse
Borrow = Callable[[], AbstractAsyncContextManager[object]]


def livekit_pool(connect: Callable[[float], Awaitable[WebSocket]]) -> Any:  # noqa: ANN401  (a peer)
    """LiveKit's pool, set up as its TTS does."""
    from livekit.agents.utils import ConnectionPool as LiveKitPool  # noqa: PLC0415

    return LiveKitPool(
        connect_cb=connect,
        close_cb=_close,
        max_session_duration=300,
        mark_refreshed_on_get=True,
    )


async def _close(ws: WebSocket) -> None:
    await ws.close()


@asynccontextmanager
async def pools(far: Far, open_timeout: float = 10.0) -> AsyncIterator[dict[str, Borrow]]:
    """How to borrow from each pool."""
    async with place(far) as here:
        session, url = here.session, far.url()

        async def connect(_: float) -> WebSocket:
            async with asyncio.timeout(open_timeout):
                return await session.ws_connect(url)

        dial = partial(
            InferenceConnection, session, url, identity=IDENTITY, open_timeout=open_timeout
        )
        async with ConnectionPool(dial, max_size=TASKS) as ours:
            ways: dict[str, Borrow] = {OURS: ours.acquire}
            if version(LIVEKIT) is None:
                yield ways
                return
            theirs = livekit_pool(connect)
            yield ways | {LIVEKIT: partial(theirs.connection, timeout=10.0)}
            await theirs.aclose()


async def hit(far: Far, tell: Tell, rounds: int) -> dict[str, list[float]]:
    """Microseconds of CPU of a hit, its return included, in each of three situations."""

    async def hits(borrow: Borrow, count: int, *, in_turn: bool) -> float:
        gc.collect()
        started = time.process_time()
        for _ in range(count):
            async with borrow():
                pass
            if in_turn:
                await asyncio.sleep(0)
        return (time.process_time() - started) / count * 1e6

    async def hit_after_idle(borrow: Borrow) -> float:
        await asyncio.sleep(IDLE_SECONDS)
        return await hits(borrow, 1, in_turn=False)

    async with pools(far) as ways:
        busy = {
            name + (IN_TURN if in_turn else ""): partial(hits, borrow, HITS, in_turn=in_turn)
            for name, borrow in ways.items()
            for in_turn in (False, True)
        }
        idle = {name + AFTER_IDLE: partial(hit_after_idle, way) for name, way in ways.items()}
        return await in_turns(busy, rounds, tell) | await in_turns(idle, 2 * rounds, tell)


async def slow(far: Far, _: Tell, __: int) -> dict[str, list[float]]:
    """Seconds that each of 200 tasks waited that were served; the first dial never ends."""
    found: dict[str, list[float]] = {}
    async with pools(far, SLOW_SECONDS) as ways:
        for name, borrow in ways.items():
            await far.ask("stall")
            waits = found[name] = []

            async def one(borrow: Borrow = borrow, waits: list[float] = waits) -> None:
                started = time.monotonic()
                try:
                    async with borrow():
                        waits.append(time.monotonic() - started)
                except (TimeoutError, aiohttp.ClientError):
                    pass

            await asyncio.gather(*(one() for _ in range(TASKS)))
    return found


async def turns(far: Far, tell: Tell, rounds: int) -> dict[str, list[float]]:
    """Milliseconds to a usable websocket at each turn, the first left out."""
    async with pools(far) as ways, place(far) as here:

        @asynccontextmanager
        async def dialled() -> AsyncIterator[WebSocket]:
            async with InferenceConnection(here.session, far.url()) as ws:
                yield ws

        async def turn(borrow: Borrow) -> float:
            await asyncio.sleep(PAUSE_SECONDS)
            started = time.monotonic()
            async with borrow() as borrowed:
                taken = time.monotonic() - started
                ws: Any = getattr(borrowed, "ws", borrowed)
                await ws.send_str("hello")
                await ws.receive_str()
            return taken * 1e3

        every = ways | {A_DIAL: dialled}
        return await in_turns(
            {name: partial(turn, borrow) for name, borrow in every.items()}, rounds, tell
        )


ROLES = {"hit": hit, "slow": slow, "turns": turns}


async def measure(far: Far, tell: Tell, *, role: str, rounds: int) -> dict[str, list[float]]:
    return await ROLES[role](far, tell, rounds)


def steps(*, quick: bool) -> list[Step]:
    return [
        Step({"role": "hit", "rounds": 2 if quick else PAIRS}),
        Step({"role": "slow", "rounds": 1}),
        Step({"role": "turns", "rounds": 2 if quick else TURNS}, LINE, tls=True),
    ]


def combine(outcomes: Outcomes) -> Result:
    """One table of what each role gave; None where a role was not measured."""
    found = {step.arguments["role"]: figures for step, figures in outcomes}
    (line,) = [step.round_trip for step, _ in outcomes if step.arguments["role"] == "turns"] or [0]

    def median(role: str, name: str) -> Cell:
        figures = (found.get(role) or {}).get(name)
        return statistics.median(figures) if figures else None

    def row(name: str) -> list[Cell]:
        if version(name) is None and name != A_DIAL:
            return [NOT_INSTALLED] * 6
        waits = (found.get("slow") or {}).get(name)
        return [
            median("hit", name),
            median("hit", name + IN_TURN),
            median("hit", name + AFTER_IDLE),
            None if waits is None else len(waits),
            None if waits is None else sum(wait >= SLOW_SECONDS for wait in waits),
            median("turns", name),
        ]

    return Result(
        name="pool",
        title="A pooled connection",
        note=f"Hits by CPU. Then {TASKS} tasks at once, one of whose dials never ends "
        f"and is given up after {SLOW_SECONDS:g} s; then the time to a usable websocket at each "
        f"turn over TLS and a line of {line * 1e3:g} ms.",
        columns=[
            Column("µs a hit"),
            Column("µs a hit" + IN_TURN),
            Column("µs a hit" + AFTER_IDLE),
            Column(f"of {TASKS} tasks served", 0),
            Column("of these held up by the slow dial", 0),
            Column("ms to a websocket", 1),
        ],
        rows={OURS: row(OURS), LIVEKIT: row(LIVEKIT), A_DIAL: [*["-"] * 5, row(A_DIAL)[-1]]},
    )


MEASUREMENT = Measurement(__name__, "pool", steps, combine)


async def by_hand(role: str, port: int | None) -> None:
    (step,) = [one for one in steps(quick=False) if one.arguments["role"] == role]
    async with reach(port=port) as far:
        found = await measure(far, lambda _: None, **step.arguments)
        step = Step(step.arguments, far.rtt)
    print(as_text(combine([(step, found)])))


async def soak() -> None:
    """Each part has a gateway of its own, since a gateway remembers every handshake."""
    chance = random.Random(1)  # noqa: S311
    started = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        urls: list[str] = []
        async with ConnectionPool(
            lambda: InferenceConnection(session, urls[-1], close_timeout=0.3), max_size=4
        ) as pool:
            for part in range(1, CYCLES // REPORT_EVERY + 1):
                async with Gateway() as gateway:
                    urls.append(gateway.url("/v1/echo"))
                    for cycle in range(REPORT_EVERY):
                        await one_cycle(pool, gateway, chance, fails=cycle % 100 == 50)
                    report(part * REPORT_EVERY, time.monotonic() - started, pool, gateway)
            # One turn of the last gateway's end is still to be noticed.
            await asyncio.sleep(0.5)
            left = pool.statistics()
            print(f"all gateways gone: {left.size} owned, closed by reason {dict(left.closed)}")


async def one_cycle(
    pool: ConnectionPool, gateway: Gateway, chance: random.Random, *, fails: bool
) -> None:
    """One turn; where it ``fails``, by the borrower, or by the peer amid it or after it."""
    fault = chance.choice(FAULTS) if fails else None
    when = chance.choice(("borrower", "amid", "after"))
    try:
        async with pool.acquire() as connection:
            if fault is not None and when == "amid":
                gateway.connections[0].inject(fault)
            await connection.ws.send_str("hello")
            await connection.ws.receive_str()
            if fault is not None and when == "borrower":
                _fail()
    except (LookupError, aiohttp.ClientError, OSError, TypeError):
        # The borrower's own failure, or what the end of the connection looks like to it.
        return
    if fault is not None and when == "after":
        gateway.connections[0].inject(fault)


def _fail() -> None:
    raise LookupError


def report(cycles: int, seconds: float, pool: ConnectionPool, gateway: Gateway) -> None:
    gc.collect()
    figures = pool.statistics()
    print(
        f"{cycles} cycles, {seconds:.0f} s: {figures.size} owned, {figures.in_use} in use, "
        f"{gateway.open_sockets} open at the gateway, "
        f"{len(list(Path('/proc/self/fd').iterdir()))} descriptors, "
        f"{len(asyncio.all_tasks())} tasks, "
        f"{resident() // 1024} KiB, {figures.dialed} dials",
        flush=True,
    )


def main() -> None:
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role == "server":
        host = os.environ.get("WAN_FAR", "127.0.0.1")
        asyncio.run(serve(host, int(os.environ.get("WAN_PORT", DEFAULT_PORT)), tls=True))
    elif role == "soak":
        asyncio.run(soak())
    elif role == "turns":
        asyncio.run(by_hand(role, None))
    elif role in ROLES:
        with far_process() as port:
            asyncio.run(by_hand(role, port))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
