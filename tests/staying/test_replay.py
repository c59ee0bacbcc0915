from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import tracemalloc
from dataclasses import asdict
from typing import Any

import pytest
from helpers.support import events
from helpers.virtual_time import elapse, in_virtual_time
from hypothesis import given
from hypothesis import strategies as st

from agent_conn import ConfigurationError, GiveUpReason, ReplayBuffer, ReplayStatistics, StateError

SECONDS, BYTES, CLOSED = GiveUpReason.SECONDS, GiveUpReason.BYTES, GiveUpReason.CLOSED
ITEMS = GiveUpReason.ITEMS


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
    assert buffer.begin() == 3.0
    assert buffer.statistics.repeated_seconds == 1.0
    assert await take(buffer, 3) == [3, 4, 5]
    assert buffer.acknowledge(0.9) == 0
    assert buffer.acknowledge(2.0) == 2
    assert buffer.begin() == 5.0
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
    assert buffer.begin() == 0.0
    assert await take(buffer, 1) == [0]
    assert buffer.begin() == 0.0
    assert buffer.statistics.repeated_seconds == 3.0
    assert await take(buffer, 4) == [0, 1, 2, 3]


async def test_what_was_not_sent_is_given_up_at_the_bound_there_and_then() -> None:
    told: list[tuple[float, GiveUpReason, int]] = []
    buffer = filled(12, max_seconds=10.0, on_give_up=lambda *what: told.append(what))
    assert told == [(1.0, SECONDS, 1), (1.0, SECONDS, 1)]
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
    assert buffer.begin() == 2.0
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


def test_a_buffer_shows_what_is_pending() -> None:
    assert repr(filled(3)) == "<ReplayBuffer 3 items pending>"


async def test_giving_up_is_logged_once_a_reason_and_a_hook_that_raises_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    filled(13, max_seconds=10.0, on_give_up=lambda *_: 1 / 0)
    assert events(caplog) == ["replay_gives_up", *["give_up_hook_failed"] * 3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_seconds": 0},
        {"max_seconds": math.nan},
        {"max_seconds": "10"},
        {"max_bytes": 0},
        {"max_bytes": math.nan},
        {"max_items": 0.5},
        {"pace": 0.9},
        {"pace": math.nan},
        {"pace": "2"},
        {"on_give_up": 1},
    ],
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
        {"size": "1"},
        {"size": math.nan},
        {"size": True},
        {"size": 1, "seconds": 46.0},
        {"size": 1, "seconds": math.nan},
        {"size": 1, "seconds": "1"},
    ],
    ids=repr,
)
def test_an_item_that_cannot_fit_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=list(wrong)[-1]):
        ReplayBuffer[int]().put_nowait(0, **wrong)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "1.0", None, True])
def test_a_time_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="until must be a finite number"):
        filled(1).acknowledge(wrong)


@pytest.mark.parametrize("wrong", [math.nan, "1", None, True])
def test_a_number_of_items_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="count must be a whole number"):
        filled(1).acknowledge_items(wrong)


async def test_begin_tells_where_in_the_call_a_connections_audio_starts() -> None:
    buffer = filled(8, max_seconds=10.0)
    assert buffer.begin() == 0.0
    await take(buffer, 8)
    buffer.acknowledge(8.0)
    for number in range(20):
        buffer.put_nowait(number, size=1, seconds=1.0)
    assert given_up(buffer) == {SECONDS: 10}
    assert buffer.begin() == 18.0
    await take(buffer, 10)
    buffer.acknowledge(10.0)
    assert buffer.begin() == 28.0


async def test_items_of_no_size_and_no_length_are_bounded_too() -> None:
    buffer = ReplayBuffer[int](max_items=100)
    for number in range(1_000):
        buffer.put_nowait(number, size=0)
    assert given_up(buffer) == {ITEMS: 900}
    assert await take(buffer, 1) == [900]
    assert_balanced(buffer.statistics)


async def test_what_was_let_go_of_is_kept_in_a_bounded_number_of_stretches() -> None:
    count = 100_000
    told: list[tuple[float, GiveUpReason, int]] = []
    buffer = ReplayBuffer[int](max_seconds=10.0, on_give_up=lambda *what: told.append(what))
    tracemalloc.start()
    try:
        for number in range(count):
            buffer.put_nowait(number, size=1, seconds=0.02)
            await anext(buffer)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert buffer.statistics.pending == count
    assert buffer.begin() == pytest.approx(count * 0.02 - 10.0)
    assert_balanced(buffer.statistics)
    assert given_up(buffer) == {SECONDS: count - 500}
    assert sum(items for _, _, items in told) == count - 500
    assert sum(seconds for seconds, _, _ in told) == pytest.approx(count * 0.02 - 10.0)


async def test_what_was_let_go_of_long_ago_is_acknowledged_by_time_and_by_number() -> None:
    for by_number in (False, True):
        buffer = filled(1, seconds=0.02, max_seconds=1.0)
        await take(buffer, 1)
        buffer.begin()
        for number in range(9_999):
            await anext(buffer)
            buffer.put_nowait(number, size=1, seconds=0.02)
        await anext(buffer)
        if by_number:
            buffer.acknowledge_items(10_000)
        else:
            assert buffer.acknowledge(10_000 * 0.02) == 10_000
        told = buffer.statistics
        assert (told.acknowledged, told.replayed, told.pending) == (9_999, 1, 0)
        assert (told.held_seconds, told.held_bytes) == (0.0, 0)


def test_no_statistic_is_ever_negative() -> None:
    async def main() -> None:
        buffer = ReplayBuffer[int](max_seconds=1.0)
        for number in range(5_000):
            buffer.put_nowait(number, size=1, seconds=1 / 30 + number * 1e-6 % 1e-3)
            await anext(buffer)
            if number % 7 == 0:
                buffer.acknowledge(1e9)
            assert buffer.statistics.held_seconds >= 0.0
        assert buffer.acknowledge(1e9)
        assert buffer.statistics.held_seconds == 0.0

    asyncio.run(main())


def test_a_pace_is_kept_and_real_time_is_never_held_up() -> None:
    async def main() -> tuple[float, float]:
        clock = asyncio.get_running_loop().time
        buffer = ReplayBuffer[int](pace=2.0)
        for number in range(100):
            buffer.put_nowait(number, size=1, seconds=0.1)
        await take(buffer, 100)
        backlog = clock()
        for number in range(100):
            await asyncio.sleep(0.1)
            buffer.put_nowait(number, size=1, seconds=0.1)
            await anext(buffer)
        return backlog, clock() - backlog

    backlog, live = in_virtual_time(main)
    assert backlog == pytest.approx(5.0, abs=0.2)
    assert live == pytest.approx(10.0, abs=0.05)


def test_an_item_that_is_due_within_a_millisecond_is_not_waited_for() -> None:
    async def main() -> float:
        buffer = ReplayBuffer[int](pace=2.0)
        for number in range(2):
            buffer.put_nowait(number, size=1, seconds=1.0)
        await anext(buffer)
        await elapse(0.4995)
        await anext(buffer)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(main) == pytest.approx(0.4995, abs=1e-6)


async def test_a_bound_in_seconds_holds_what_adds_up_to_it_in_fractions() -> None:
    buffer = ReplayBuffer[int](max_seconds=0.3)
    for number in range(3):
        buffer.put_nowait(number, size=1, seconds=0.1)
    assert 0.1 + 0.1 + 0.1 > 0.3
    assert given_up(buffer) == {}
    assert [await anext(buffer) for _ in range(3)] == [0, 1, 2]


def test_what_was_in_flight_at_three_short_losses_in_a_row_is_given_up_and_the_rest_goes_on() -> (
    None
):
    async def main() -> None:
        told: list[tuple[float, GiveUpReason, int]] = []
        buffer = ReplayBuffer[str](on_give_up=lambda *what: told.append(what))
        buffer.put_nowait("poison", size=6, seconds=2.0)
        for _ in range(3):
            buffer.begin()
            assert await anext(buffer) == "poison"
            buffer.put_nowait("later", size=5, seconds=1.0)
        assert buffer.begin() == 2.0
        assert told == [(2.0, GiveUpReason.POISON, 1)]
        assert [await anext(buffer) for _ in range(3)] == ["later"] * 3
        buffer.acknowledge(3.0)
        assert_balanced(buffer.statistics)
        assert buffer.statistics.pending == 0

    in_virtual_time(main)


def test_a_connection_that_took_nothing_between_changes_nothing() -> None:
    async def main() -> None:
        buffer = filled(1, seconds=1.0)
        for _ in range(3):
            buffer.begin()
            assert await anext(buffer) == 0
            buffer.begin()
            buffer.begin()
        assert given_up(buffer) == {GiveUpReason.POISON: 1}

    in_virtual_time(main)


def test_a_long_connection_between_makes_no_poison() -> None:
    async def main() -> None:
        buffer = filled(1, seconds=1.0)
        for last in (0.0, 0.0, 6.0, 0.0, 0.0):
            buffer.begin()
            assert await anext(buffer) == 0
            if last:
                await elapse(last)
                buffer.put_nowait(1, size=1)
                assert await anext(buffer) == 1
        buffer.begin()
        assert given_up(buffer) == {}
        assert await anext(buffer) == 0

    in_virtual_time(main)


def test_what_was_acknowledged_in_part_is_no_poison() -> None:
    async def main() -> None:
        buffer = filled(6)
        for first in range(4):
            buffer.begin()
            assert await anext(buffer) == first
            assert await anext(buffer) == first + 1
            buffer.acknowledge_items(1)
        assert given_up(buffer) == {}

    in_virtual_time(main)


def test_statistics_are_plain_data() -> None:
    told = filled(3).statistics
    assert pickle.loads(pickle.dumps(told)) == copy.deepcopy(told) == told
    plain = json.loads(json.dumps(asdict(told)))
    assert plain["given_up"] == {reason.value: 0 for reason in GiveUpReason}


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
