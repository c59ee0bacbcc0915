"""A worker as a process of its own, which is full at two calls; it prints what it serves."""

from __future__ import annotations

import asyncio

from livekit.agents import AgentServer, JobContext, JobExecutorType, inference

from agent_conn.integrations.livekit import attribute_job


async def entrypoint(ctx: JobContext) -> None:
    """Dial what an agent dials first, then join; end with the caller."""
    attribute_job(ctx)
    stt, tts = inference.STT("auto"), inference.TTS("cartesia/sonic-3")
    tts.prewarm()
    stream = stt.stream()

    async def end(_reason: str) -> None:
        await stream.aclose()
        await stt.aclose()
        await tts.aclose()

    ctx.add_shutdown_callback(end)
    ctx.room.on("participant_disconnected", lambda _: ctx.shutdown())
    await ctx.connect()
    print("serves", ctx.job.id, flush=True)


def load(worker: AgentServer) -> float:
    """Full at two. It is asked twice a second, and what it says is told to the server."""
    print("busy", len(worker.active_jobs), flush=True)
    return len(worker.active_jobs) / 2


async def main() -> None:
    """Serve until killed."""
    worker = AgentServer(
        job_executor_type=JobExecutorType.THREAD,
        num_idle_processes=2,
        load_fnc=load,
        load_threshold=0.99,
        host="127.0.0.1",
        port=0,
    )
    worker.rtc_session(entrypoint)
    worker.on("worker_registered", lambda *_: print("registered", flush=True))
    await worker.run(devmode=True)


if __name__ == "__main__":
    asyncio.run(main())
