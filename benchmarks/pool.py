"""What a pooled connection costs, side by side with LiveKit's pool and with a dial per turn.

    python benchmarks/pool.py hit           CPU of a hit, as the median of pairs
    python benchmarks/pool.py slow          200 tasks at once, one of their dials slow
    python benchmarks/pool.py soak          60,000 cycles, each hundredth with a fault
    python benchmarks/pool.py server        the gateway for `turns`, with TLS
    python benchmarks/pool.py turns         seconds to a usable websocket, turn after turn

`server` and `turns` run at the two ends of a long line. They find each other by WAN_FAR and
WAN_PORT, take the round trip in seconds from WAN_RTT, and the certificate from the file
POOL_BENCH_CA, which `server` writes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import trustme
from aiohttp import web
from livekit.agents.utils import ConnectionPool as LiveKitPool

from agent_conn import AgentIdentity, ConnectionPool, InferenceConnection
from agent_conn.gateway import CloseWith, DropAfter, Fault, Gateway, Reset, StallInHandshake

PAIRS, HITS = 41, 2_000
IDLE_PAIRS, IDLE_SECONDS = 61, 0.1
TASKS, SLOW_SECONDS = 200, 1.0
CYCLES, REPORT_EVERY = 60_000, 10_000
TURNS = 10
FAULTS: tuple[Fault, ...] = (DropAfter(), CloseWith(1011), Reset())

WebSocket = aiohttp.ClientWebSocketResponse


def livekit_pool(connect: Callable[[float], Awaitable[WebSocket]]) -> LiveKitPool[WebSocket]:
    return LiveKitPool(
        connect_cb=connect,
        close_cb=_close,
        max_session_duration=300,
        mark_refreshed_on_get=True,
    )


async def _close(ws: WebSocket) -> None:
    await ws.close()


@asynccontextmanager
async def local() -> AsyncIterator[tuple[Gateway, aiohttp.ClientSession]]:
    connector = aiohttp.TCPConnector(limit=0)
    async with Gateway() as gateway, aiohttp.ClientSession(connector=connector) as session:
        yield gateway, session


async def hit() -> None:  # noqa: C901  (six loops, without a call more in any)
    async with local() as (gateway, session):
        url = gateway.url("/v1/echo")
        dial = partial(InferenceConnection, session, url, identity=AgentIdentity("J", "R", "A"))
        theirs = livekit_pool(lambda _: session.ws_connect(url))
        async with ConnectionPool(dial) as ours:

            async def our_hits() -> None:
                for _ in range(HITS):
                    async with ours.acquire():
                        pass

            async def their_hits() -> None:
                for _ in range(HITS):
                    async with theirs.connection(timeout=10.0):
                        pass

            async def our_hits_in_turn() -> None:
                for _ in range(HITS):
                    async with ours.acquire():
                        pass
                    await asyncio.sleep(0)

            async def their_hits_in_turn() -> None:
                for _ in range(HITS):
                    async with theirs.connection(timeout=10.0):
                        pass
                    await asyncio.sleep(0)

            async def our_hit() -> None:
                async with ours.acquire():
                    pass

            async def their_hit() -> None:
                async with theirs.connection(timeout=10.0):
                    pass

            await compare("one after another", our_hits, their_hits)
            await compare("one in each turn of the loop", our_hits_in_turn, their_hits_in_turn)
            name = f"one after {IDLE_SECONDS:g} s idle"
            await compare(name, our_hit, their_hit, pairs=IDLE_PAIRS, hits=1, idle=IDLE_SECONDS)
        await theirs.aclose()


async def compare(
    name: str,
    ours: Callable[[], Awaitable[None]],
    theirs: Callable[[], Awaitable[None]],
    *,
    pairs: int = PAIRS,
    hits: int = HITS,
    idle: float = 0.0,
) -> None:
    spent = [(await cpu(ours, hits, idle), await cpu(theirs, hits, idle)) for _ in range(pairs)]
    # The first pair dials.
    mine, other = (statistics.median(column) for column in zip(*spent[1:], strict=True))
    ratio = statistics.median(a / b for a, b in spent[1:])
    print(f"hit, {name}: {mine:.2f} us, LiveKit {other:.2f} us, median ratio {ratio:.2f}")


async def cpu(work: Callable[[], Awaitable[None]], hits: int, idle: float) -> float:
    """Microseconds of the whole process for a hit, its return included."""
    gc.collect()
    await asyncio.sleep(idle)
    started = time.process_time()
    await work()
    return (time.process_time() - started) / hits * 1e6


async def slow() -> None:
    for name in ("agent_conn", "LiveKit"):
        async with local() as (gateway, session):
            url = gateway.url("/v1/echo")
            gateway.inject(StallInHandshake())
            waits: list[float] = []
            ours = ConnectionPool(
                partial(InferenceConnection, session, url, open_timeout=SLOW_SECONDS),
                max_size=TASKS,
            )
            theirs = livekit_pool(partial(_connect_within, session, url))

            async def borrow(
                ours: ConnectionPool = ours,
                theirs: LiveKitPool[WebSocket] = theirs,
                waits: list[float] = waits,
                *,
                mine: bool = name == "agent_conn",
            ) -> None:
                started = time.monotonic()
                try:
                    if mine:
                        async with ours.acquire():
                            waits.append(time.monotonic() - started)
                    else:
                        async with theirs.connection(timeout=10.0):
                            waits.append(time.monotonic() - started)
                except (TimeoutError, aiohttp.ClientError):
                    pass

            await asyncio.gather(*(borrow() for _ in range(TASKS)))
            await ours.aclose()
            await theirs.aclose()
            held_up = sum(wait >= SLOW_SECONDS for wait in waits)
            print(
                f"{name}: of {TASKS} tasks {len(waits)} were served, {held_up} of them after the "
                f"slow dial of {SLOW_SECONDS:g} s; median {statistics.median(waits):.3f} s"
            )


async def _connect_within(session: aiohttp.ClientSession, url: str, _: float) -> WebSocket:
    async with asyncio.timeout(SLOW_SECONDS):
        return await session.ws_connect(url)


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
        f"{resident_kib()} KiB, {figures.dialed} dials",
        flush=True,
    )


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


def serve() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(os.environ["WAN_FAR"]).configure_cert(context)
    authority.cert_pem.write_to_path(os.environ["POOL_BENCH_CA"])
    app = web.Application()
    app.router.add_get("/v1/echo", _echo)
    web.run_app(
        app,
        host=os.environ["WAN_FAR"],
        port=int(os.environ["WAN_PORT"]),
        ssl_context=context,
        print=None,
        access_log=None,
    )


async def _echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def turns() -> None:
    round_trip = float(os.environ["WAN_RTT"])
    url = f"wss://{os.environ['WAN_FAR']}:{os.environ['WAN_PORT']}/v1/echo"
    trusted = ssl.create_default_context(cafile=os.environ["POOL_BENCH_CA"])
    connector = aiohttp.TCPConnector(ssl=trusted)
    async with aiohttp.ClientSession(connector=connector) as session:
        dial = partial(InferenceConnection, session, url)

        async def our_turn() -> float:
            started = time.monotonic()
            async with ours.acquire() as connection:
                taken = time.monotonic() - started
                await _say(connection.ws)
            return taken

        async def their_turn() -> float:
            started = time.monotonic()
            async with theirs.connection(timeout=10.0) as ws:
                taken = time.monotonic() - started
                await _say(ws)
            return taken

        async def dialled_turn() -> float:
            started = time.monotonic()
            async with dial() as ws:
                taken = time.monotonic() - started
                await _say(ws)
            return taken

        theirs = livekit_pool(lambda _: session.ws_connect(url))
        async with ConnectionPool(dial) as ours:
            for name, turn in (
                ("agent_conn's pool", our_turn),
                ("LiveKit's pool", their_turn),
                ("a dial per turn", dialled_turn),
            ):
                first, *rest = [await _after_a_pause(turn) for _ in range(TURNS)]
                print(
                    f"{name}: first turn {first:.4f} s, then {statistics.median(rest):.4f} s "
                    f"({statistics.median(rest) / round_trip:.2f} round trips), "
                    f"at most {max(rest):.4f} s"
                )
        await theirs.aclose()


async def _after_a_pause(turn: Callable[[], Awaitable[float]]) -> float:
    await asyncio.sleep(0.2)
    return await turn()


async def _say(ws: WebSocket) -> None:
    await ws.send_str("hello")
    await ws.receive_str()


def main() -> None:
    roles = {"hit": hit, "slow": slow, "soak": soak, "turns": turns}
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role == "server":
        serve()
    elif role in roles:
        asyncio.run(roles[role]())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
