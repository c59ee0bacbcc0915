"""What the wait for a room really is: from `session.start` to `room connected`.

    python tests/livekit/joining.py [CALLS [AT_ONCE]]

As many calls as are asked for (50), so many at once (1), on a LiveKit server of this machine: by
turns with `attribute_job` and without it, so that the machine's own changes go into both alike.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

from helpers.livekit_real import Caller, open_world, worker  # noqa: E402  (after the paths)
from livekit import rtc  # noqa: E402
from livekit.agents import Agent, AgentSession, JobContext  # noqa: E402

from agent_conn.integrations.livekit import attribute_job  # noqa: E402

ATTRIBUTED = "attributed"


async def measure(calls: int, at_once: int) -> dict[bool, list[float]]:
    """The seconds of each call, with the line and without it."""
    told: asyncio.Queue[tuple[bool, float]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def entrypoint(ctx: JobContext) -> None:
        attributed = ctx.job.room.name.startswith(ATTRIBUTED)
        if attributed:
            attribute_job(ctx)
        started = time.monotonic()

        @ctx.room.on("connection_state_changed")
        def on_change(state: rtc.ConnectionState.ValueType) -> None:
            if state == rtc.ConnectionState.CONN_CONNECTED:
                passed = time.monotonic() - started
                loop.call_soon_threadsafe(told.put_nowait, (attributed, passed))

        # So that calls that are over take nothing from the next ones.
        ctx.room.on("participant_disconnected", lambda _: ctx.shutdown())
        session: AgentSession[None] = AgentSession(
            stt="deepgram/nova-3", tts="cartesia/sonic-3", llm="openai/gpt-4o-mini"
        )
        await session.start(Agent(instructions="Listen."), room=ctx.room)

    seconds: dict[bool, list[float]] = {True: [], False: []}
    with pytest.MonkeyPatch.context() as patch:
        async with open_world(patch) as world, worker(entrypoint, idle=at_once + 1):
            for number in itertools.count():
                if all(len(each) >= calls for each in seconds.values()):
                    break
                name = f"{'alone' if number % 2 else ATTRIBUTED}-{number}"
                # A server has calls for which it finds no worker, and does not ask again.
                with suppress(TimeoutError):
                    async with AsyncExitStack() as stack, asyncio.timeout(20):
                        callers = [
                            Caller(world.server, f"{name}-{each}") for each in range(at_once)
                        ]
                        await asyncio.gather(*map(stack.enter_async_context, callers))
                        for _ in callers:
                            attributed, passed = await told.get()
                            seconds[attributed].append(passed)
    return seconds


def main() -> None:
    """Print the figures."""
    calls, at_once = [*map(int, sys.argv[1:]), *(50, 1)[len(sys.argv) - 1 :]]
    for attributed, seconds in asyncio.run(measure(calls, at_once)).items():
        name = "with attribute_job" if attributed else "LiveKit alone"
        ordered = sorted(seconds)
        print(
            f"{name:18}  {len(ordered)} calls, {at_once} at once  "
            f"median {statistics.median(ordered):.3f} s  "
            f"9 of 10 within {ordered[len(ordered) * 9 // 10]:.3f} s  longest {ordered[-1]:.3f} s"
        )


if __name__ == "__main__":
    main()
