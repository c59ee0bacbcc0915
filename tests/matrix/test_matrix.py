"""Every cell of the matrix: its error, its phase, its bound, nothing left, no credential told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from helpers.canary import assert_clean, told_by
from helpers.support import Stopwatch
from matrix.cells import Cell, full
from matrix.consumers import CALLERS, MARGIN, Caller, every_error
from matrix.scene import Scene, open_scene
from matrix.vocabulary import Consumer, Expected, Fault, Place, Way

from agent_conn import ConnectError, ConnectionLost


@pytest.mark.parametrize("cell", full(), ids=str)
async def test_a_cell(
    cell: Cell, loop_reports: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_scene(cell) as scene:
        caller = CALLERS[cell.consumer](scene)
        error = await play(scene, caller)
        await caller.finish()
        await scene.nothing_is_left(strictly=caller.owns_its_sockets)
        assert_as_expected(scene, caller, error)
        # aiohttp's own errors hold what its client sent, and reach that client as they are.
        met = every_error(error) if cell.consumer is not Consumer.MIDDLEWARE else ()
        for link in (*met, *every_error(caller.noted())):
            assert_clean(told_by(link))
        assert_clean([*scene.told, *caller.told()])
        for record in caplog.records:
            assert_clean([record.getMessage(), repr(vars(record))])


async def play(scene: Scene, caller: Caller) -> BaseException | None:
    """Have the caller struck, take the way out, and return what the caller met."""
    running = asyncio.create_task(caller.run(), name="caller")
    reaching = asyncio.create_task(scene.until_reached(), name="reaching")
    await asyncio.wait({running, reaching}, return_when=asyncio.FIRST_COMPLETED)
    if not reaching.done():
        # It has failed on the way, which is what it met.
        reaching.cancel()
        await asyncio.wait({reaching})
    else:
        await reaching
    async with Stopwatch() as watch:
        if scene.cell.way is Way.CANCEL:
            running.cancel()
        elif scene.cell.way is Way.ACLOSE:
            await caller.aclose()
        elif scene.cell.way is Way.NOTHING:
            await scene.let_it_go_on()
        await asyncio.wait({running}, timeout=5.0)
    assert running.done()
    assert watch.elapsed <= scene.expected.within + MARGIN
    try:
        await running
    except (Exception, asyncio.CancelledError) as error:
        return error
    return None


def assert_as_expected(scene: Scene, caller: Caller, error: BaseException | None) -> None:
    expected = scene.expected
    if expected.recovers:
        assert error is None
        error = caller.noted()
    assert_error(expected, error)
    if expected.recovers or (expected.error is None and scene.cell.way is Way.NOTHING):
        assert scene.echoes_after >= 1 or expected.ending is not None
    if expected.error is None and scene.cell.place in {Place.WAITING, Place.TOKEN}:
        assert_pre_dialed(scene)
    if expected.ending is not None:
        assert scene.made[0].record.ended is expected.ending


def assert_pre_dialed(scene: Scene) -> None:
    """A pre-dial that was found dead is replaced by one cold dial; any other one serves."""
    if scene.cell.way is not Way.ACLOSE and scene.made:
        found_dead = scene.cell.fault in {Fault.RESET, Fault.HALF_CLOSE}
        record = scene.made[0].record
        assert (record.pre_dialed, record.dials) == (not found_dead, 1 + found_dead)


def assert_error(expected: Expected, error: BaseException | None) -> None:
    if expected.error is ConnectionError:
        assert isinstance(error, ConnectionError)
    else:
        assert type(error) is (expected.error or type(None))
    if expected.phase is not None:
        assert isinstance(error, ConnectError)
        assert error.phase is expected.phase
    if expected.code is not None:
        assert isinstance(error, ConnectionLost)
        assert error.code == expected.code
