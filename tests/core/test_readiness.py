from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import async_solipsism
import pytest
from helpers.support import events

from agent_conn import RoomConnected, WaitOutcome
from agent_conn._room import look, wait_for_room

pytestmark = pytest.mark.quick

T = TypeVar("T")


def in_fake_time(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` on a clock that jumps to the next timer."""
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        return runner.run(main())


class Room:
    """A room whose looks and waits can be told to fail."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def is_set(self) -> bool:
        if self.error is not None:
            raise self.error
        return False

    async def wait(self) -> bool:
        if self.error is not None:
            raise self.error
        return True


def test_an_event_fits_the_protocol() -> None:
    assert isinstance(asyncio.Event(), RoomConnected)


def test_no_room_is_not_waited_for() -> None:
    assert look(None, None) is WaitOutcome.NOT_REQUESTED


def test_a_connected_room_is_seen_without_waiting() -> None:
    room = asyncio.Event()
    room.set()
    assert look(room, 5.0) is WaitOutcome.ALREADY_CONNECTED
    assert look(room, 0) is WaitOutcome.ALREADY_CONNECTED


def test_a_wait_of_zero_only_looks() -> None:
    assert look(asyncio.Event(), 0) is WaitOutcome.TIMED_OUT


@pytest.mark.parametrize("timeout", [2.0, None])
def test_an_unconnected_room_has_to_be_waited_for(timeout: float | None) -> None:
    assert look(asyncio.Event(), timeout) is None


def test_a_look_that_raises_is_a_failure_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert look(Room(RuntimeError("no room")), 2.0) is WaitOutcome.FAILED
    assert events(caplog) == ["room_wait_failed"]


def test_the_wait_ends_when_the_room_connects() -> None:
    async def main() -> tuple[WaitOutcome, float]:
        loop, room = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(0.7, room.set)
        outcome = await wait_for_room(room, 2.0)
        return outcome, loop.time()

    outcome, now = in_fake_time(main)
    assert outcome is WaitOutcome.CONNECTED
    assert now == pytest.approx(0.7)


def test_the_wait_ends_at_its_deadline() -> None:
    async def main() -> tuple[WaitOutcome, float]:
        outcome = await wait_for_room(asyncio.Event(), 2.0)
        return outcome, asyncio.get_running_loop().time()

    outcome, now = in_fake_time(main)
    assert outcome is WaitOutcome.TIMED_OUT
    assert now == pytest.approx(2.0)


def test_none_waits_for_as_long_as_it_takes() -> None:
    async def main() -> tuple[WaitOutcome, float]:
        loop, room = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(3_600, room.set)
        return await wait_for_room(room, None), loop.time()

    outcome, now = in_fake_time(main)
    assert outcome is WaitOutcome.CONNECTED
    assert now == pytest.approx(3_600)


@pytest.mark.parametrize("set_first", [True, False])
def test_a_room_that_connects_in_the_tick_of_the_deadline_counts_as_connected(
    set_first: bool,
) -> None:
    async def main() -> WaitOutcome:
        loop, room = asyncio.get_running_loop(), asyncio.Event()
        if set_first:
            loop.call_at(2.0, room.set)
            return await wait_for_room(room, 2.0)
        waiting = asyncio.create_task(wait_for_room(room, 2.0))
        await asyncio.sleep(0)
        loop.call_at(2.0, room.set)
        return await waiting

    assert in_fake_time(main) is WaitOutcome.CONNECTED


def test_a_wait_that_raises_is_a_failure_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        assert in_fake_time(lambda: wait_for_room(Room(OSError()), 2.0)) is WaitOutcome.FAILED
    assert events(caplog) == ["room_wait_failed"]


def test_a_timeout_of_the_rooms_own_is_a_failure_and_not_the_deadline() -> None:
    assert in_fake_time(lambda: wait_for_room(Room(TimeoutError()), 2.0)) is WaitOutcome.FAILED


def test_a_room_whose_own_waiting_was_cancelled_is_a_failure_and_no_cancellation() -> None:
    room = Room(asyncio.CancelledError())
    assert in_fake_time(lambda: wait_for_room(room, 2.0)) is WaitOutcome.FAILED


def test_an_outer_cancellation_passes_through_the_wait() -> None:
    async def main() -> bool:
        waiting = asyncio.create_task(wait_for_room(asyncio.Event(), None))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        return waiting.cancelled()

    assert in_fake_time(main)
