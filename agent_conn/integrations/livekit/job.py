"""A job's ids, and when its room is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from livekit import rtc
from livekit.agents import JobContext
from livekit.agents import job as livekit_job

from agent_conn._identity import AgentIdentity
from agent_conn._options import kind
from agent_conn._room import RoomConnected
from agent_conn.errors import ConfigurationError


def find_job(ctx: JobContext | None) -> JobContext | None:
    """``ctx``, or the job that this code runs in, or None outside a job.

    Raises:
        ConfigurationError: ``ctx`` is not a job's context.
    """
    if ctx is None:
        try:
            return livekit_job.get_job_context()
        except RuntimeError:
            return None
    if not (hasattr(ctx, "job") and hasattr(ctx, "room")):
        raise ConfigurationError(f"ctx must be a JobContext, got {kind(ctx)}")
    return ctx


def job_identity(ctx: JobContext | None = None) -> Callable[[], AgentIdentity]:
    """Reads a job's ids anew at each call. A connection takes it as ``identity=``.

    The job is found now: it is ``ctx``, or else the job that this code runs in. So the callable
    also works in threads, executors and tasks that LiveKit's own context does not reach. It
    reads the participant's sid only while the room is connected, because reading it earlier
    raises. Where one id cannot be read, the others still are. Outside a job there are none.

    Raises:
        ConfigurationError: ``ctx`` is not a job's context.
    """
    job = find_job(ctx)
    if job is None:
        return AgentIdentity

    def read() -> AgentIdentity:
        return AgentIdentity.best_effort(
            job_id=lambda: job.job.id,
            room_id=lambda: job.job.room.sid,
            agent_id=lambda: job.agent.sid if job.room.isconnected() else None,
        )

    return read


def room_connected(room: rtc.Room) -> RoomConnected:
    """Tells when a LiveKit room is connected. A connection takes it as ``room_connected=``.

    It looks at the room's state and waits for its changes. If the room disconnects meanwhile,
    the wait goes on. It never calls ``connect()``, because the first caller's options win.

    Raises:
        ConfigurationError: ``room`` does not tell whether it is connected.
    """
    if not callable(getattr(room, "isconnected", None)):
        raise ConfigurationError(f"room must be an rtc.Room, got {kind(room)}")
    return _Room(room)


def has_left_room(job: JobContext) -> bool:
    """Whether the job has left its room. Its participant can still be read then."""
    try:
        return bool(job.agent.sid) and not job.room.isconnected()
    except Exception:
        return False


class _Room:
    def __init__(self, room: rtc.Room) -> None:
        self._room = room

    def is_set(self) -> bool:
        return bool(self._room.isconnected())

    async def wait(self) -> None:
        changed, loop = asyncio.Event(), asyncio.get_running_loop()

        def on_change() -> None:
            # The room's loop may be another thread's.
            loop.call_soon_threadsafe(changed.set)

        # The event named "connected" never comes in livekit 1.1.21.
        self._room.on("connection_state_changed", on_change)
        try:
            while not self.is_set():
                await changed.wait()
                changed.clear()
        finally:
            self._room.off("connection_state_changed", on_change)
