"""Wait for the room, at most for a set time."""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum
from typing import Protocol, runtime_checkable

from agent_conn._log import log


@runtime_checkable
class RoomConnected(Protocol):
    """Whether the room is connected, level-triggered; ``asyncio.Event`` fits."""

    def is_set(self) -> bool:
        """Whether the room is connected now."""
        ...

    async def wait(self) -> object:
        """Return once the room is connected; what it returns is not looked at."""
        ...


class WaitOutcome(StrEnum):
    """How the wait for the room ended."""

    NOT_REQUESTED = "not requested"
    ALREADY_CONNECTED = "already connected"
    CONNECTED = "connected"
    TIMED_OUT = "timed out"
    FAILED = "failed"


def look(room_connected: RoomConnected | None, timeout: float | None) -> WaitOutcome | None:
    """The outcome if it is known without waiting, or None when ``wait_for_room`` is needed.

    ``timeout`` is in seconds: 0 only looks, None waits for ever.
    """
    if room_connected is None:
        return WaitOutcome.NOT_REQUESTED
    try:
        if room_connected.is_set():
            return WaitOutcome.ALREADY_CONNECTED
    except Exception as error:
        return _failed(error)
    return WaitOutcome.TIMED_OUT if timeout == 0 else None


async def wait_for_room(room_connected: RoomConnected, timeout: float | None) -> WaitOutcome:
    """Wait until the room is connected, at most ``timeout`` seconds (None: for ever).

    A room that connects in the same tick as the deadline counts as connected. Where ``wait()``
    raises, that is logged and the outcome is ``FAILED``: a missing id never fails the call.
    """
    task = asyncio.current_task()
    cancels_before = task.cancelling() if task else 0
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            await room_connected.wait()
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > cancels_before:
            raise
        # Nobody cancelled this task: the room's own waiting was cancelled.
        return _failed(error)
    except Exception as error:
        if not deadline.expired():
            return _failed(error)
        if look(room_connected, 0) is not WaitOutcome.ALREADY_CONNECTED:
            return WaitOutcome.TIMED_OUT
    return WaitOutcome.CONNECTED


def _failed(error: BaseException) -> WaitOutcome:
    log(logging.WARNING, "room_wait_failed", error=type(error).__name__)
    return WaitOutcome.FAILED
