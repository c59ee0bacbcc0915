"""Every fault of a gateway, met by the first of two endpoints or by both: nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from helpers.canary import TOKEN, assert_clean, told_by
from helpers.pair import Pair, echoed, failed, open_pair
from helpers.support import Stopwatch

from agent_conn import (
    ConnectError,
    ConnectTimeout,
    DialFailed,
    HandshakeInvalid,
    HandshakeRejected,
    StateError,
)
from agent_conn.gateway import (
    FAULTS,
    AcceptAndClose,
    BadAccept,
    CloseWith,
    ConcurrencyLimit,
    DropAfter,
    DropHandshake,
    Fault,
    Garbage,
    GoSilent,
    IdleTimeout,
    IgnoreClose,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    SessionLimit,
    StallAtAccept,
    StallAtTLS,
    StallInHandshake,
    StopReading,
    UnaskedExtension,
    UnaskedSubprotocol,
)

BUDGET = 0.8
"""Longer than two head starts."""
MARGIN = 0.15

MOVES: list[tuple[Fault, type[ConnectError]]] = [
    (StallAtAccept(), ConnectTimeout),
    (StallAtTLS(), ConnectTimeout),
    (StallInHandshake(), ConnectTimeout),
    (Reset("accept"), DialFailed),
    (Reset("tls"), DialFailed),
    (Reset("handshake"), DialFailed),
    (DropHandshake(), DialFailed),
    (Reject(500), HandshakeRejected),
    (Reject(503, {"Retry-After": "1"}), HandshakeRejected),
    (Reject(599), HandshakeRejected),
]
"""With the error that two such endpoints give."""
STAYS: list[tuple[Fault, type[ConnectError]]] = [
    (Reject(401), HandshakeRejected),
    (Reject(408), HandshakeRejected),
    (Reject(429), HandshakeRejected),
    (ConcurrencyLimit(0), HandshakeRejected),
    (Redirect("/v1/elsewhere"), HandshakeInvalid),
    (NotWebSocket(), HandshakeInvalid),
    (Garbage(), HandshakeInvalid),
    (BadAccept(), HandshakeInvalid),
    (UnaskedExtension(), HandshakeInvalid),
    (UnaskedSubprotocol(), HandshakeInvalid),
]
AFTER_OPEN = {
    AcceptAndClose, CloseWith, DropAfter, GoSilent, IdleTimeout, IgnoreClose,
    SessionLimit, StopReading,
}  # fmt: skip


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def any_pair(
    request: pytest.FixtureRequest, loop_reports: list[dict[str, Any]]
) -> AsyncIterator[Pair]:
    async with open_pair(tls=request.param) as opened:
        yield opened


def test_every_fault_is_here() -> None:
    dialling = {type(fault) for fault, _ in (*MOVES, *STAYS)}
    assert dialling | AFTER_OPEN == set(FAULTS)


@pytest.mark.parametrize(("fault", "error"), MOVES, ids=repr)
@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
async def test_a_fault_of_the_first_is_survived(
    any_pair: Pair, fault: Fault, error: type[ConnectError], waits: bool
) -> None:
    # Twice, for the cold dial that replaces a pre-dial.
    any_pair.near.inject(fault, times=None)
    never = asyncio.Event() if waits else None
    connection = any_pair.dial(room_connected=never, connect_wait=0.05, open_timeout=BUDGET)
    async with Stopwatch() as watch:
        assert await echoed(connection) == any_pair.far.url("/v1/echo")
    assert watch.elapsed < BUDGET
    assert len(any_pair.far.handshakes) == 1


@pytest.mark.parametrize(("fault", "error"), MOVES, ids=repr)
async def test_a_fault_of_both_is_a_typed_error_within_the_bound(
    any_pair: Pair, fault: Fault, error: type[ConnectError]
) -> None:
    any_pair.near.inject(fault)
    any_pair.far.inject(fault)
    async with Stopwatch() as watch:
        met = await failed(any_pair.dial(open_timeout=BUDGET, token=TOKEN))
    assert type(met) is error
    assert watch.elapsed < BUDGET + MARGIN
    assert isinstance(met, ConnectError)
    assert met.retryable
    assert_clean(told_by(met))


@pytest.mark.parametrize(("fault", "error"), STAYS, ids=repr)
async def test_a_refusal_of_the_first_is_raised_as_it_is(
    any_pair: Pair, fault: Fault, error: type[ConnectError]
) -> None:
    any_pair.near.inject(fault)
    met = await failed(any_pair.dial(open_timeout=BUDGET, token=TOKEN))
    assert type(met) is error
    assert any_pair.far.accepted == 0
    assert_clean(told_by(met))


@pytest.mark.parametrize("ending", ["cancelled", "closed"])
@pytest.mark.parametrize("fault", [StallAtAccept(), StallAtTLS(), StallInHandshake()], ids=repr)
@pytest.mark.parametrize("after", [0.1, 0.35], ids=["one is dialled", "both are"])
async def test_what_hangs_at_both_is_ended_at_once(
    any_pair: Pair, fault: Fault, ending: str, after: float
) -> None:
    any_pair.near.inject(fault)
    any_pair.far.inject(fault)
    connection = any_pair.dial(open_timeout=5.0)
    opening = asyncio.create_task(echoed(connection), name="opening")
    await asyncio.sleep(after)
    async with Stopwatch() as watch:
        if ending == "cancelled":
            opening.cancel()
        else:
            await connection.aclose()
        await asyncio.wait({opening})
    assert watch.elapsed < MARGIN
    assert opening.cancelled() or isinstance(opening.exception(), StateError)
