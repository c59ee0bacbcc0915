"""Cancelled after any number of turns of the event loop: no socket, task or slot is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest
from helpers.support import Line, Room

from agent_conn import ConnectionState, Ending, InferenceConnection
from agent_conn.gateway import DropAfter, GoSilent, IgnoreClose, StallInHandshake, StopReading

TURNS = (*range(100), *range(100, 5000, 50))
"""asyncio opens a connection in the first ones. uvloop takes many more, since it looks at sockets
only in some."""
ENOUGH_IN_ON_OPEN = 20


async def turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def run_for_turns(work: Awaitable[object], turns: int, cancels: int = 1) -> bool:
    """Cancel ``work`` after ``turns`` turns; whether it had ended by itself before."""
    task = asyncio.ensure_future(work)
    await turn(turns)
    finished = task.done()
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({task})
    if not finished:
        assert task.cancelled()
    return finished


@dataclass
class Sweep:
    """One way to open a connection, opened again for every number of turns."""

    line: Line
    room_after: int | None
    on_open: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]] | None = None
    cancels: int = 1

    async def run(self) -> list[ConnectionState]:
        """The state that each cancellation met."""
        met: list[ConnectionState] = []
        for turns in TURNS:
            room = Room()
            connection = self.line.dial(
                identity=room.identity,
                room_connected=None if self.room_after is None else room.connected,
                connect_wait=None,
                on_open=self.on_open,
                observer=lambda change: (
                    met.append(change.previous) if change.state is ConnectionState.CLOSING else None
                ),
            )
            connecting = asyncio.create_task(self._connect(room))
            finished = await run_for_turns(_open(connection), turns, self.cancels)
            await connecting
            if finished:
                await connection.aclose()
            assert connection.state in {ConnectionState.CLOSED, ConnectionState.IDLE}
            await self.line.gateway.wait_idle(2.0)
            if finished or met.count(ConnectionState.OPENING) == ENOUGH_IN_ON_OPEN:
                return met
        raise AssertionError(f"not open after {TURNS[-1]} turns")

    async def _connect(self, room: Room) -> None:
        await turn(self.room_after or 0)
        room.connected.set()


@pytest.mark.parametrize("cancels", [1, 3], ids=["once", "three times"])
@pytest.mark.parametrize("room_after", [None, 2, 60], ids=["no wait", "dialling", "dialled"])
async def test_cancelled_while_it_opens(
    any_line: Line, room_after: int | None, cancels: int
) -> None:
    met = await Sweep(any_line, room_after, cancels=cancels).run()
    assert ConnectionState.DIALING in met
    assert (ConnectionState.WAITING in met) is (room_after is not None)
    assert met[-1] is ConnectionState.OPEN


@pytest.mark.parametrize("room_after", [None, 60], ids=["no wait", "dialled"])
async def test_cancelled_while_on_open_is_held_up_in_a_send(
    any_line: Line, room_after: int | None
) -> None:
    async def flood(ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await ws.send_bytes(b"\x00" * 1_000_000)

    any_line.gateway.inject(StopReading(), times=None)
    met = await Sweep(any_line, room_after, flood).run()
    assert met.count(ConnectionState.OPENING) == ENOUGH_IN_ON_OPEN


@pytest.mark.parametrize("fault", [None, GoSilent(), IgnoreClose(), StopReading()], ids=repr)
async def test_cancelled_while_it_closes(any_line: Line, fault: GoSilent | None) -> None:
    for turns in TURNS:
        if fault is not None:
            any_line.gateway.inject(fault)
        connection = any_line.dial(close_timeout=0.3)
        await connection
        finished = await run_for_turns(connection.aclose(), turns)
        # An eager task begins as it is made.
        begun = turns or asyncio.get_running_loop().get_task_factory() is not None
        assert connection.state is (ConnectionState.CLOSED if begun else ConnectionState.OPEN)
        await connection.aclose()
        await any_line.gateway.wait_idle(2.0)
        if finished or turns == 30:
            break
    assert turns > 1
    assert connection.record.ended is (Ending.ABORTED if fault else Ending.CLOSED_HERE)


async def test_aborting_frees_a_sender_that_the_peer_has_blocked(any_line: Line) -> None:
    async def flood(ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await ws.send_bytes(b"\x00" * 1_000_000)

    any_line.gateway.inject(StopReading())
    connection = any_line.dial(close_timeout=0.1)
    sending = asyncio.create_task(flood(await connection))
    await turn(50)
    assert not sending.done()
    await connection.aclose()
    with pytest.raises(ConnectionError):
        await sending


async def test_aborting_wakes_a_reader(any_line: Line) -> None:
    any_line.gateway.inject(GoSilent())
    connection = any_line.dial(close_timeout=0.1)
    ws = await connection
    reading = asyncio.create_task(ws.receive())
    await turn(3)
    await connection.aclose()
    assert (await reading).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING}


@pytest.mark.parametrize("waits", [True, False])
async def test_closed_by_another_task_after_any_number_of_turns(
    any_line: Line, waits: bool
) -> None:
    any_line.gateway.inject(StallInHandshake(), times=None)
    for turns in range(1, 80, 3):
        connection = any_line.dial(
            room_connected=asyncio.Event() if waits else None, connect_wait=None
        )
        opening = asyncio.create_task(_open(connection))
        await turn(turns)
        await connection.aclose()
        assert connection.state is ConnectionState.CLOSED
        await asyncio.wait({opening})
        assert type(opening.exception()).__name__ == "StateError"
        await any_line.gateway.wait_idle(2.0)


async def _open(connection: InferenceConnection) -> object:
    return await connection


async def test_closed_here_after_a_cancelled_receive_is_no_loss(any_line: Line) -> None:
    connection = any_line.dial()
    await run_for_turns((await connection).receive(), 3)
    await connection.aclose()
    assert connection.record.ended is Ending.CLOSED_HERE
    assert connection.loss is None


async def test_lost_before_its_close_after_a_cancelled_receive_is_a_loss(any_line: Line) -> None:
    connection = any_line.dial()
    ws = await connection
    await run_for_turns(ws.receive(), 3)
    any_line.gateway.connections[0].inject(DropAfter(reset=True))
    await any_line.gateway.wait_idle()
    await turn(5)
    assert ws.get_extra_info("peername") is None
    await connection.aclose()
    assert connection.record.ended is Ending.LOST
