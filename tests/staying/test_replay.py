from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_conn import ConfigurationError, GiveUpReason, ReplayBuffer, ReplayStatistics, StateError

SECONDS, BYTES, CLOSED = GiveUpReason.SECONDS, GiveUpReason.BYTES, GiveUpReason.CLOSED


def filled(count: int, *, seconds: float = 1.0, **bounds: Any) -> ReplayBuffer[int]:
    buffer = ReplayBuffer[int](**bounds)
    for number in range(count):
        buffer.put_nowait(number, size=10, seconds=seconds)
    return buffer


async def take(buffer: ReplayBuffer[int], count: int) -> list[int]:
    return [await anext(buffer) for _ in range(count)]


def given_up(buffer: ReplayBuffer[int]) -> dict[GiveUpReason, int]:
    return {reason: count for reason, count in buffer.statistics.given_up.items() if count}


def assert_balanced(told: ReplayStatistics) -> None:
    ends = told.acknowledged + told.replayed + sum(told.given_up.values()) + told.unsent
    assert told.put == ends + told.pending


async def test_what_was_sent_and_not_acknowledged_comes_out_again_in_order() -> None:
    buffer = filled(5)
    buffer.begin()
    assert await take(buffer, 4) == [0, 1, 2, 3]
    assert buffer.acknowledge(2.0) == 2
    assert buffer.begin() == 2.0
    assert await take(buffer, 3) == [2, 3, 4]


async def test_positions_count_from_where_the_replay_began() -> None:
    buffer = filled(6)
    await take(buffer, 4)
    buffer.acknowledge(3.0)
    buffer.begin()
    assert await take(buffer, 3) == [3, 4, 5]
    assert buffer.acknowledge(0.9) == 0
    assert buffer.acknowledge(2.0) == 2
    assert buffer.begin() == 1.0
    assert await take(buffer, 1) == [5]


async def test_a_first_acknowledgement_and_one_after_a_replay_are_told_apart() -> None:
    buffer = filled(4)
    await take(buffer, 2)
    buffer.acknowledge(1.0)
    buffer.begin()
    await take(buffer, 3)
    buffer.acknowledge(3.0)
    told = buffer.statistics
    assert (told.acknowledged, told.replayed, told.pending) == (3, 1, 0)


async def test_an_acknowledgement_rounded_down_to_milliseconds_covers_its_item() -> None:
    buffer = filled(1, seconds=1.0004)
    await take(buffer, 1)
    assert buffer.acknowledge(1.0) == 1


async def test_an_item_that_is_covered_in_part_is_not_acknowledged() -> None:
    buffer = filled(1)
    await take(buffer, 1)
    assert buffer.acknowledge(0.95) == 0


async def test_a_replay_that_is_cut_is_begun_again_from_its_start() -> None:
    buffer = filled(4)
    await take(buffer, 3)
    assert buffer.begin() == 3.0
    assert await take(buffer, 1) == [0]
    assert buffer.begin() == 3.0
    assert await take(buffer, 4) == [0, 1, 2, 3]


async def test_what_was_not_sent_is_given_up_at_the_bound_there_and_then() -> None:
    told: list[tuple[float, GiveUpReason]] = []
    buffer = filled(12, max_seconds=10.0, on_give_up=lambda *what: told.append(what))
    assert told == [(1.0, SECONDS), (1.0, SECONDS)]
    assert given_up(buffer) == {SECONDS: 2}
    assert await take(buffer, 1) == [2]


async def test_the_bound_in_bytes_holds_too() -> None:
    buffer = filled(5, seconds=0.0, max_bytes=30)
    assert given_up(buffer) == {BYTES: 2}
    assert buffer.statistics.held_bytes == 30


async def test_what_was_sent_is_let_go_of_at_the_bound_and_given_up_only_with_its_connection() -> (
    None
):
    buffer = filled(3, max_seconds=3.0)
    await take(buffer, 3)
    buffer.put_nowait(3, size=10, seconds=1.0)
    buffer.put_nowait(4, size=10, seconds=1.0)
    assert given_up(buffer) == {}
    assert buffer.acknowledge(1.0) == 1
    assert buffer.begin() == 1.0
    assert given_up(buffer) == {SECONDS: 1}
    assert await take(buffer, 3) == [2, 3, 4]
    assert buffer.statistics.acknowledged == 1


async def test_items_that_the_bound_took_leave_no_gap_in_the_positions() -> None:
    buffer = filled(2, max_seconds=2.0)
    await take(buffer, 1)
    for number in (2, 3, 4):
        buffer.put_nowait(number, size=10, seconds=1.0)
    assert await take(buffer, 2) == [3, 4]
    assert buffer.acknowledge(2.0) == 2
    assert buffer.acknowledge(3.0) == 1


async def test_putting_can_wait_for_room_instead() -> None:
    buffer = filled(3, max_seconds=3.0)
    putting = asyncio.create_task(buffer.put(3, size=10, seconds=1.0))
    await take(buffer, 3)
    await asyncio.sleep(0)
    assert not putting.done()
    buffer.acknowledge(1.0)
    await putting
    assert given_up(buffer) == {}
    assert await take(buffer, 1) == [3]


async def test_ending_frees_who_waits_for_room() -> None:
    buffer = filled(3, max_seconds=3.0)
    putting = asyncio.create_task(buffer.put(3, size=10, seconds=1.0))
    await asyncio.sleep(0)
    buffer.end()
    with pytest.raises(StateError):
        await putting


async def test_iterating_waits_for_the_next_item_and_stops_at_the_end() -> None:
    buffer = ReplayBuffer[int]()

    async def write() -> list[int]:
        return [item async for item in buffer]

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    buffer.put_nowait(7, size=1)
    await asyncio.sleep(0)
    assert not writing.done()
    buffer.end()
    assert await writing == [7]


async def test_after_the_end_a_new_connection_still_gets_the_replay() -> None:
    buffer = filled(2)
    buffer.end()
    assert [item async for item in buffer] == [0, 1]
    buffer.begin()
    assert [item async for item in buffer] == [0, 1]


async def test_a_replay_wakes_a_writer_that_waits() -> None:
    buffer = filled(1)
    await take(buffer, 1)
    writing = asyncio.create_task(take(buffer, 1))
    await asyncio.sleep(0)
    buffer.begin()
    assert await writing == [0]


async def test_items_can_be_acknowledged_by_their_number() -> None:
    buffer = filled(4, seconds=0.0)
    await take(buffer, 3)
    buffer.acknowledge_items(2)
    buffer.begin()
    assert await take(buffer, 2) == [2, 3]


@pytest.mark.parametrize("count", [-1, 2])
async def test_more_than_was_sent_cannot_be_acknowledged(count: int) -> None:
    buffer = filled(3)
    await take(buffer, 1)
    with pytest.raises(ConfigurationError, match="count"):
        buffer.acknowledge_items(count)


async def test_closing_counts_what_is_left_once() -> None:
    buffer = filled(5)
    await take(buffer, 3)
    buffer.acknowledge(1.0)
    buffer.begin()
    await take(buffer, 1)
    buffer.close()
    buffer.close()
    told = buffer.statistics
    assert (told.acknowledged, told.unsent, told.pending) == (1, 2, 0)
    assert given_up(buffer) == {CLOSED: 2}
    assert (told.held_seconds, told.held_bytes) == (0.0, 0)
    assert [item async for item in buffer] == []


async def test_an_ended_buffer_takes_nothing_more() -> None:
    buffer = filled(1)
    buffer.end()
    with pytest.raises(StateError):
        buffer.put_nowait(1, size=1)
    with pytest.raises(StateError):
        await buffer.put(1, size=1)


async def test_giving_up_is_logged_once_a_reason_and_a_hook_that_raises_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    filled(13, on_give_up=lambda *_: 1 / 0)
    events = [record.message for record in caplog.records]
    assert events.count("replay_gives_up") == 1
    assert events.count("give_up_hook_failed") == 3


@pytest.mark.parametrize(
    "wrong",
    [{"max_seconds": 0}, {"max_seconds": math.nan}, {"max_bytes": 0}, {"on_give_up": 1}],
    ids=repr,
)
def test_a_wrong_argument_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ReplayBuffer(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1},
        {"size": 5_000_000},
        {"size": 1, "seconds": -1.0},
        {"size": 1, "seconds": 11.0},
        {"size": 1, "seconds": math.nan},
    ],
    ids=repr,
)
def test_an_item_that_cannot_fit_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=list(wrong)[-1]):
        ReplayBuffer[int]().put_nowait(0, **wrong)


async def take_at_most(buffer: ReplayBuffer[int], count: int) -> list[int]:
    taken: list[int] = []
    for _ in range(count):
        one = asyncio.ensure_future(anext(buffer))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait({one})
        taken += [] if one.cancelled() else [one.result()]
    return taken


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.floats(0, 2), st.integers(0, 40)),
        st.tuples(st.just("take"), st.just(0.0), st.integers(1, 4)),
        st.tuples(st.just("begin"), st.just(0.0), st.just(0)),
        st.tuples(st.just("acknowledge"), st.floats(0, 8), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_item_ends_in_one_counted_state_and_comes_out_in_order(
    steps: list[tuple[str, float, int]],
) -> None:
    async def main() -> None:
        buffer = ReplayBuffer[int](max_seconds=5.0, max_bytes=100)
        came: list[int] = []
        put = 0
        for step, seconds, count in steps:
            if step == "put":
                buffer.put_nowait(put, size=count, seconds=seconds)
                put += 1
            elif step == "take":
                came += await take_at_most(buffer, count)
            elif step == "begin":
                buffer.begin()
                came.clear()
            else:
                buffer.acknowledge(seconds)
            assert came == sorted(set(came))
            assert_balanced(buffer.statistics)
            assert buffer.statistics.held_seconds <= 5.0 + 1e-3
            assert buffer.statistics.held_bytes <= 100
        buffer.close()
        assert_balanced(buffer.statistics)
        assert buffer.statistics.pending == 0

    asyncio.run(main())
