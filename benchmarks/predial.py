"""Round trips from the room connecting to the websocket open, beside a bare ws_connect.

On the far machine:   python benchmarks/predial.py serve --host ADDRESS --port 8443
On the near machine:  python benchmarks/predial.py --host ADDRESS --port 8443

Both make TLS 1.3 connections to a gateway of this package. A round trip is the median time
of a TCP connect on the same line in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import statistics
from collections.abc import Awaitable, Callable

import aiohttp

from agent_conn import AgentIdentity, InferenceConnection
from agent_conn.gateway import Gateway

IDENTITY = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
ROOM_AFTER_ROUND_TRIPS = 5


def unverified() -> ssl.SSLContext:
    """The far gateway makes a certificate of its own; what is measured is its handshake."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def tcp_connect(host: str, port: int) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    _, writer = await asyncio.open_connection(host, port)
    elapsed = loop.time() - started
    writer.close()
    await writer.wait_closed()
    return elapsed


async def bare(url: str) -> float:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=unverified())) as session:
        started = loop.time()
        async with session.ws_connect(url, headers=IDENTITY.headers()):
            return loop.time() - started


async def after_the_room(url: str, room_after: float) -> float:
    loop, room = asyncio.get_running_loop(), asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=unverified())) as session:
        connection = InferenceConnection(
            session, url, identity=IDENTITY, room_connected=room, connect_wait=None
        )
        due = loop.time() + room_after
        loop.call_at(due, room.set)
        async with connection:
            elapsed = loop.time() - due
        if not connection.record.pre_dialed:
            raise SystemExit("the pre-dial was lost; the figure would be a cold dial's")
        return elapsed


async def median(measure: Callable[[], Awaitable[float]], times: int) -> float:
    return statistics.median([await measure() for _ in range(times)])


async def compare(host: str, port: int, times: int) -> None:
    url = f"wss://{host}:{port}/v1/echo"
    rtt = await median(lambda: tcp_connect(host, port), times)
    cold = await median(lambda: bare(url), times)
    warm = await median(lambda: after_the_room(url, ROOM_AFTER_ROUND_TRIPS * rtt), times)
    print(f"round trip (TCP connect)             {rtt * 1e3:8.2f} ms")
    print(
        f"session.ws_connect                   {cold * 1e3:8.2f} ms  {cold / rtt:5.2f} round trips"
    )
    print(
        f"InferenceConnection, room to open    {warm * 1e3:8.2f} ms  {warm / rtt:5.2f} round trips"
    )


async def serve(host: str, port: int) -> None:
    async with Gateway(host=host, port=port, tls=True):
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", choices=["measure", "serve"], default="measure")
    parser.add_argument("--host", default=os.environ.get("WAN_FAR", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("WAN_PORT", "8443")))
    parser.add_argument("--times", type=int, default=15)
    options = parser.parse_args()
    if options.role == "serve":
        asyncio.run(serve(options.host, options.port))
    else:
        asyncio.run(compare(options.host, options.port, options.times))


if __name__ == "__main__":
    main()
