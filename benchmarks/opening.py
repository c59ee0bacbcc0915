"""CPU of opening a connection, as a ratio to a bare ws_connect with the same headers.

    python benchmarks/opening.py

No TLS and no wait, on loopback, the gateway in a process of its own. Batches of opens take
turns; each pair of batches gives a ratio, and the median of the ratios is printed. Only this
process's CPU is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp

from agent_conn import AgentIdentity, InferenceConnection
from agent_conn.gateway import Gateway

IDENTITY = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
TOKEN = "benchmark-token"  # noqa: S105  (opens nothing)
HEARTBEAT = 10.0

Opened = tuple[aiohttp.ClientWebSocketResponse, Callable[[], Awaitable[object]]]


async def bare(session: aiohttp.ClientSession, url: str) -> Opened:
    headers = {
        **IDENTITY.headers(),
        "X-LiveKit-Session-ID": "session",
        "Authorization": f"Bearer {TOKEN}",
    }
    ws = await session.ws_connect(url, headers=headers, heartbeat=HEARTBEAT)
    return ws, ws.close


async def ours(session: aiohttp.ClientSession, url: str) -> Opened:
    connection = InferenceConnection(
        session, url, identity=IDENTITY, token=TOKEN, heartbeat=HEARTBEAT
    )
    return await connection, connection.aclose


async def batch(
    opener: Callable[[aiohttp.ClientSession, str], Awaitable[Opened]],
    session: aiohttp.ClientSession,
    url: str,
    size: int,
) -> float:
    """CPU seconds of one open, over ``size`` of them."""
    started = time.process_time()
    opened = [await opener(session, url) for _ in range(size)]
    elapsed = time.process_time() - started
    for _, close in opened:
        await close()
    return elapsed / size


async def compare(url: str, pairs: int, size: int) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for opener in (bare, ours):
            await batch(opener, session, url, size)
        costs = [
            (await batch(bare, session, url, size), await batch(ours, session, url, size))
            for _ in range(pairs)
        ]
    first, second = (statistics.median(column) * 1e6 for column in zip(*costs, strict=True))
    ratio = statistics.median(own / peer for peer, own in costs)
    print(f"session.ws_connect   {first:7.0f} us of CPU an open")
    print(f"InferenceConnection  {second:7.0f} us of CPU an open")
    print(f"ratio, median of {pairs} pairs: {ratio:.3f}")


def serve(ready: Connection) -> None:
    async def run() -> None:
        async with Gateway() as gateway:
            ready.send(gateway.url("/v1/echo"))
            await asyncio.Event().wait()

    asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--size", type=int, default=30, help="opens in a batch")
    options = parser.parse_args()
    near, far = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(far,), daemon=True)
    server.start()
    try:
        asyncio.run(compare(near.recv(), options.pairs, options.size))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
