"""What the wait for a room really is: from `session.start` to `room connected`, over 50 calls.

    python tests/livekit/joining.py [CALLS]

One call after another on a LiveKit server of this machine, by turns with `attribute_job` and
without it, so that the machine's own changes go into both alike.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

from helpers.livekit_real import GATEWAY_CREDENTIALS, Caller, set_environment, worker  # noqa: E402
from livekit import rtc  # noqa: E402  (after the paths)
from livekit.agents import Agent, AgentSession, JobContext  # noqa: E402
from livekit_local_server import LiveKitServer  # noqa: E402

from agent_conn.gateway import Gateway  # noqa: E402
from agent_conn.integrations.livekit import attribute_job  # noqa: E402

ATTRIBUTED = "attributed"


async def measure(calls: int) -> dict[bool, list[float]]:
    """The seconds of each call, with the line and without it."""
    told: asyncio.Queue[float] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def entrypoint(ctx: JobContext) -> None:
        if ctx.job.room.name.startswith(ATTRIBUTED):
            attribute_job(ctx)
        started = time.monotonic()

        @ctx.room.on("connection_state_changed")
        def on_change(state: rtc.ConnectionState.ValueType) -> None:
            if state == rtc.ConnectionState.CONN_CONNECTED:
                loop.call_soon_threadsafe(told.put_nowait, time.monotonic() - started)

        # So that calls that are over take nothing from the next ones.
        ctx.room.on("participant_disconnected", lambda _: ctx.shutdown())
        session: AgentSession[None] = AgentSession(
            stt="deepgram/nova-3", tts="cartesia/sonic-3", llm="openai/gpt-4o-mini"
        )
        await session.start(Agent(instructions="Listen."), room=ctx.room)

    seconds: dict[bool, list[float]] = {True: [], False: []}
    with pytest.MonkeyPatch.context() as patch:
        async with LiveKitServer() as server, Gateway(**GATEWAY_CREDENTIALS) as gateway:
            set_environment(patch, server.url, server, gateway)
            async with worker(entrypoint, idle=2):
                for number in itertools.count():
                    if all(len(each) >= calls for each in seconds.values()):
                        break
                    attributed = number % 2 == 0
                    name = f"{ATTRIBUTED if attributed else 'alone'}-{number}"
                    # A server has calls for which it finds no worker, and does not ask again.
                    with suppress(TimeoutError):
                        async with Caller(server, name), asyncio.timeout(10):
                            seconds[attributed].append(await told.get())
    return seconds


def main() -> None:
    """Print the figures."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    for attributed, seconds in asyncio.run(measure(calls)).items():
        name = "with attribute_job" if attributed else "LiveKit alone"
        ordered = sorted(seconds)
        print(
            f"{name:18}  {len(ordered)} calls  median {statistics.median(ordered):.3f} s  "
            f"9 of 10 within {ordered[len(ordered) * 9 // 10]:.3f} s  longest {ordered[-1]:.3f} s"
        )


if __name__ == "__main__":
    main()
