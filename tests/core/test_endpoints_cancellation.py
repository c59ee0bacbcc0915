"""Ended at any moment while it tries its endpoints: no socket, task or slot is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.pair import Pair, open_pair
from helpers.support import Room

from agent_conn import ConnectionState, InferenceConnection, StateError
from agent_conn.gateway import (
    DropHandshake,
    Fault,
    GoSilent,
    Reject,
    Reset,
    StallAtTLS,
    StallInHandshake,
)

ENOUGH_TURNS = 2000
AROUND_THE_RACE = [0.248 + 0.002 * number for number in range(12)]
"""Seconds: the next endpoint is dialled at 0.25, and open some milliseconds later."""


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def any_pair(
    request: pytest.FixtureRequest, loop_reports: list[dict[str, Any]]
) -> AsyncIterator[Pair]:
    async with open_pair(tls=request.param) as opened:
        yield opened


@pytest.fixture
async def pair(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Pair]:
    async with open_pair(tls=True) as opened:
        yield opened


async def turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


@dataclass
class Sweep:
    """One way to open a connection, opened again and ended at each of many moments."""

    pair: Pair
    fault: Fault
    room_after: int | None = None
    cancels: int = 1

    async def end_after(self, moment: Awaitable[None]) -> bool:
        """Cancel an opening at ``moment``; whether it had opened before."""
        room, connection = self._begin()
        opening = asyncio.create_task(_open(connection), name="opening")
        connecting = asyncio.create_task(self._connect(room), name="connecting")
        await moment
        opened = opening.done()
        for _ in range(self.cancels):
            opening.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({opening, connecting})
        assert opened or opening.cancelled()
        await connection.aclose()
        assert connection.state is ConnectionState.CLOSED
        assert_no_task_is_left()
        await self.pair.idle()
        return opened

    async def close_after(self, moment: Awaitable[None]) -> bool:
        """Close what is being opened at ``moment``; whether it had opened before."""
        _, connection = self._begin()
        opening = asyncio.create_task(_open(connection), name="opening")
        await moment
        opened = opening.done()
        await connection.aclose()
        await asyncio.wait({opening})
        assert opened or isinstance(opening.exception(), StateError)
        assert_no_task_is_left()
        await self.pair.idle()
        return opened

    def _begin(self) -> tuple[Room, InferenceConnection]:
        self.pair.near.withdraw_faults()
        self.pair.near.inject(self.fault)
        self.pair.endpoints = self.pair.make_endpoints()
        room = Room()
        waits = None if self.room_after is None else room.connected
        return room, self.pair.dial(
            identity=room.identity, room_connected=waits, connect_wait=None, open_timeout=5.0
        )

    async def _connect(self, room: Room) -> None:
        await turn(self.room_after or 0)
        room.connected.set()


async def _open(connection: InferenceConnection) -> object:
    return await connection


def assert_no_task_is_left() -> None:
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert {name for name in names if name.startswith("agent_conn") and ".gateway" not in name} == (
        set()
    )


async def each_turn(end: Callable[[Awaitable[None]], Awaitable[bool]]) -> int:
    """Call ``end`` after one turn of the loop, then two, until it opens before it is ended."""
    for turns in range(1, ENOUGH_TURNS):
        if await end(turn(turns)):
            return turns
    raise AssertionError(f"not open after {ENOUGH_TURNS} turns")


@pytest.mark.parametrize("cancels", [1, 3], ids=["once", "three times"])
@pytest.mark.parametrize("room_after", [None, 2, 60], ids=["no wait", "dialling", "dialled"])
@pytest.mark.parametrize("fault", [Reject(503), DropHandshake(), Reset("accept")], ids=repr)
async def test_cancelled_while_it_moves_on(
    any_pair: Pair, fault: Fault, room_after: int | None, cancels: int
) -> None:
    assert await each_turn(Sweep(any_pair, fault, room_after, cancels).end_after) > 5


@pytest.mark.parametrize("fault", [Reject(503), Reset("accept")], ids=repr)
async def test_closed_while_it_moves_on(any_pair: Pair, fault: Fault) -> None:
    assert await each_turn(Sweep(any_pair, fault).close_after) > 5


@pytest.mark.parametrize("cancels", [1, 3], ids=["once", "three times"])
@pytest.mark.parametrize("room_after", [None, 60], ids=["no wait", "dialled"])
async def test_cancelled_while_two_are_dialled(
    pair: Pair, room_after: int | None, cancels: int
) -> None:
    sweep = Sweep(pair, StallAtTLS(), room_after, cancels)
    opened = [await sweep.end_after(asyncio.sleep(moment)) for moment in AROUND_THE_RACE]
    assert not opened[0]
    assert await sweep.end_after(asyncio.sleep(1.5))


async def test_closed_while_two_are_dialled(pair: Pair) -> None:
    sweep = Sweep(pair, StallAtTLS())
    opened = [await sweep.close_after(asyncio.sleep(moment)) for moment in AROUND_THE_RACE]
    assert not opened[0]
    assert await sweep.close_after(asyncio.sleep(1.5))


async def test_cancelled_on_the_turn_on_which_its_share_ends(any_pair: Pair) -> None:
    any_pair.near.inject(StallInHandshake(), times=None)
    share = 0.1
    for early in range(12):
        any_pair.endpoints = any_pair.make_endpoints()
        connection = any_pair.dial(open_timeout=2 * share)
        opening = asyncio.create_task(_open(connection), name="opening")
        await asyncio.sleep(share - 0.006 + early * 0.001)
        opening.cancel()
        await asyncio.wait({opening})
        await connection.aclose()
        assert_no_task_is_left()
        await any_pair.idle()


async def test_cancelled_while_the_loser_is_ended_the_winner_is_ended_too(pair: Pair) -> None:
    """Whoever is cancelled again and again, at every turn, gets nothing and leaves nothing."""
    for moment in AROUND_THE_RACE[::3]:
        pair.near.withdraw_faults()
        pair.near.inject(StallAtTLS())
        pair.endpoints = pair.make_endpoints()
        connection = pair.dial()
        opening = asyncio.create_task(_open(connection), name="opening")
        await asyncio.sleep(moment)
        while not opening.done():
            opening.cancel()
            await asyncio.sleep(0)
        await connection.aclose()
        assert_no_task_is_left()
        await pair.idle()


async def test_a_silent_endpoint_that_opened_is_closed_within_its_bound(any_pair: Pair) -> None:
    any_pair.near.inject(Reject(503))
    any_pair.far.inject(GoSilent())
    connection = any_pair.dial(close_timeout=0.1)
    await connection
    await connection.aclose()
    assert connection.state is ConnectionState.CLOSED
