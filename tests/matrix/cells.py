"""The cells of the matrix: consumers x places x faults x ways out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import product

import aiohttp
from matrix.fates import FATES, impossible
from matrix.vocabulary import (
    BUDGET,
    CLOSE,
    REDIAL,
    SLOWNESS,
    SWEEP,
    WAIT,
    Consumer,
    Empty,
    Expected,
    Fault,
    Held,
    Place,
    Result,
    Way,
)

from agent_conn import (
    ConnectTimeout,
    DialFailed,
    Ending,
    HandshakeInvalid,
    HandshakeRejected,
    OpenHookFailed,
    PoolTimeout,
    StateError,
)

_FINAL = {
    Fault.REJECT,
    Fault.REDIRECT,
    Fault.GARBAGE,
    Fault.BAD_ACCEPT,
    Fault.UNASKED,
    Fault.NOT_WEBSOCKET,
    Fault.CLOSE_1008,
}
"""Faults after which another dial is not worth it."""
_SLOW = {Fault.DELAY, Fault.RESTORE}
_MIDDLEWARES = {Place.WAITING, Place.DIAL, Place.TLS, Place.HANDSHAKE}
# aiohttp's own, which reach the client as they are. What a drop breaks off after the dial,
# aiohttp dials again by itself.
_CLIENTS_ERRORS: dict[tuple[Place, Fault], type[Exception] | None] = {
    (Place.DIAL, Fault.RESET): aiohttp.ClientConnectorError,
    (Place.DIAL, Fault.REFUSE): aiohttp.ClientConnectorError,
    (Place.TLS, Fault.RESET): aiohttp.ClientConnectorError,
    (Place.TLS, Fault.HALF_CLOSE): aiohttp.ClientConnectorError,
    (Place.HANDSHAKE, Fault.RESET): None,
    (Place.HANDSHAKE, Fault.HALF_CLOSE): None,
    (Place.HANDSHAKE, Fault.REJECT): aiohttp.WSServerHandshakeError,
    (Place.HANDSHAKE, Fault.UNAVAILABLE): aiohttp.WSServerHandshakeError,
    (Place.HANDSHAKE, Fault.REDIRECT): HandshakeInvalid,
    (Place.HANDSHAKE, Fault.GARBAGE): aiohttp.ClientResponseError,
    (Place.HANDSHAKE, Fault.BAD_ACCEPT): aiohttp.WSServerHandshakeError,
    (Place.HANDSHAKE, Fault.NOT_WEBSOCKET): aiohttp.WSServerHandshakeError,
}


@dataclass(frozen=True)
class Cell:
    """One run: who, where, what goes wrong and what ends it."""

    consumer: Consumer
    place: Place
    fault: Fault
    way: Way

    def __str__(self) -> str:
        return f"{self.consumer}/{self.place}/{self.fault}/{self.way}"

    @property
    def held(self) -> Held:
        """What the cell holds: what is expected, or why it is empty."""
        outcome = self._outcome()
        if isinstance(outcome, Empty):
            return outcome
        expected = Expected(
            **{field.name: getattr(outcome, field.name) for field in fields(Result)}
        )
        expected = _AS_MET_BY[self.consumer](self, expected)
        return replace(expected, within=self._within(expected))

    def _outcome(self) -> Result | Empty:
        if self.place is Place.IDLE and self.consumer is not Consumer.POOL:
            return Empty.POOL_ONLY
        if self.consumer is Consumer.MIDDLEWARE and self.place not in _MIDDLEWARES:
            return Empty.NO_TOKEN if self.place is Place.TOKEN else Empty.NOT_ITS_SOCKET
        reason = impossible(self.place, self.fault)
        if reason is not None:
            return reason
        outcome = FATES[self.place][self.fault].by(self.way)
        if self.consumer is Consumer.MIDDLEWARE and isinstance(outcome, Result):
            if self.way is Way.ACLOSE:
                return Empty.NO_ACLOSE
            if self.fault is Fault.UNASKED:
                return Empty.TAKEN
        return outcome

    def _within(self, expected: Expected) -> float:
        bound = SLOWNESS if self.fault in _SLOW else 0.0
        if self.way is Way.DEADLINE:
            bound += WAIT if self.place is Place.WAITING else 0.0
            bound += SWEEP if self.place is Place.IDLE else 0.0
            bound += BUDGET if self.place is not Place.CLOSING else 0.0
        redials = expected.recovers or self.consumer is Consumer.POOL
        bound += REDIAL if redials else 0.0
        waited_for = {Ending.ABORTED}
        if self.place is Place.WRITING:
            # A peer that has ended and does not read is waited for as a silent one is.
            waited_for.add(Ending.LOST)
        return bound + (CLOSE if expected.ending in waited_for else 0.0)


def _as_met_by_reconnect(cell: Cell, expected: Expected) -> Expected:
    if expected.error is StateError:
        return replace(expected, error=None)
    if expected.error in {None, asyncio.CancelledError, TimeoutError, ConnectionError}:
        return expected
    return replace(expected, recovers=cell.fault not in _FINAL)


def _as_met_by_the_pool(cell: Cell, expected: Expected) -> Expected:
    if cell.place is Place.CLOSING:
        # Its reader was stopped, as a cancelled one is: aiohttp's close waits for no answer.
        return replace(expected, ending=Ending.CLOSED_HERE)
    if expected.error is ConnectTimeout:
        return replace(expected, error=PoolTimeout, phase=None)
    if cell.fault not in _FINAL and expected.error in {
        DialFailed,
        HandshakeRejected,
        OpenHookFailed,
    }:
        # It dials again, as long as its borrower waits.
        return replace(expected, error=None, phase=None)
    return expected


def _as_met_by_the_middleware(cell: Cell, expected: Expected) -> Expected:
    if expected.error is ConnectTimeout:
        return replace(expected, error=TimeoutError, phase=None)
    if expected.error in {None, asyncio.CancelledError}:
        return expected
    error = _CLIENTS_ERRORS[cell.place, cell.fault]
    return replace(expected, error=error, phase=None)


_AS_MET_BY: dict[Consumer, Callable[[Cell, Expected], Expected]] = {
    Consumer.CORE: lambda _, expected: expected,
    Consumer.RECONNECT: _as_met_by_reconnect,
    Consumer.POOL: _as_met_by_the_pool,
    Consumer.MIDDLEWARE: _as_met_by_the_middleware,
}


def every() -> Iterator[Cell]:
    """Every combination."""
    return (Cell(*sides) for sides in product(Consumer, Place, Fault, Way))


def full() -> list[Cell]:
    """The combinations that are run."""
    return [cell for cell in every() if isinstance(cell.held, Expected)]
