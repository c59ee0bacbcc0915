"""Which of several endpoints to dial, and when. Pure: no I/O, no clock, no event loop.

Endpoints go by their places in the list. Times are in seconds, of one clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from agent_conn.errors import (
    AgentConnError,
    ConnectionLost,
    ConnectTimeout,
    DialFailed,
    HandshakeRejected,
    OpenHookFailed,
    Phase,
)

HEAD_START = 0.25
"""Seconds that an endpoint has for TCP and TLS before the next is dialled beside it."""
FAILURES = 5
"""Failures in a row after which an endpoint is ejected."""
REST = 30.0
"""Seconds until an endpoint that failed is tried again; a fifth more or less, by chance."""
_SPREAD = 0.2
_SERVER_ERROR = 500
_LOST_CODES = frozenset({1006, 1012, 1013})
_CALLERS_PHASES = frozenset({Phase.TOKEN, Phase.IDENTITY})


def is_endpoints_fault(error: AgentConnError) -> bool:
    """Whether ``error`` tells of the endpoint, so that another one may do better.

    It does where the network failed, TLS included; for a 5xx and a timeout; and where the
    connection was lost without a Close, or by close code 1012 or 1013. A 4xx refuses the caller.
    """
    if isinstance(error, OpenHookFailed):
        return error.loss is not None and is_endpoints_fault(error.loss)
    if isinstance(error, ConnectionLost):
        return error.code in _LOST_CODES
    if isinstance(error, HandshakeRejected):
        return error.status >= _SERVER_ERROR
    if isinstance(error, ConnectTimeout):
        return error.phase not in _CALLERS_PHASES
    return isinstance(error, DialFailed) and (error.retryable or error.certificate_refused)


def begins_at(last_began: float, *, connected: bool) -> float:
    """When the next endpoint is dialled, one of its dial having begun at ``last_began``.

    ``connected``: whether one of them has TCP and TLS up; then there is no need.
    """
    return math.inf if connected else last_began + HEAD_START


def answer_by(now: float, deadline: float | None, left: int) -> float | None:
    """Until when an endpoint may answer the Upgrade: an equal share of what is left of the time.

    ``left`` counts the endpoints that have not failed, itself included. None: no bound of its own.
    """
    return None if deadline is None or left < 2 else now + (deadline - now) / left


class EndpointHealth:
    """What the dials and losses of a process tell of its endpoints.

    Args:
        count: how many endpoints there are.
        random: gives numbers from 0 to 1.
    """

    def __init__(self, count: int, random: Callable[[], float]) -> None:
        self.current: int = 0
        """The one that is dialled first."""
        self._failures = [0] * count
        self._retry_at = [0.0] * count
        self._random = random

    def choose(self, tried: Collection[int], now: float) -> int | None:
        """The endpoint that a dial which has ``tried`` those tries next; None: each was.

        That is one listed before the current one, where its rest is over; then the current one
        and those that follow it, in a circle; last those that are ejected.
        """
        left = [place for place in range(len(self._failures)) if place not in tried]
        return min(left, key=lambda place: self._rank(place, now), default=None)

    def works(self) -> bool:
        """Whether the current one has not failed since it last opened."""
        return not self._failures[self.current]

    def ejected(self, place: int, now: float) -> bool:
        """Whether it is left out as long as there is another."""
        return self._failures[place] >= FAILURES and now < self._retry_at[place]

    def began(self, place: int, now: float) -> None:
        """A dial tries it. One that failed is tried by no other dial for another rest."""
        if self._failures[place]:
            self._rest(place, now)

    def failed(self, place: int, now: float) -> None:
        """A dial failed there, or a connection was lost."""
        self._failures[place] += 1
        self._rest(place, now)
        if place == self.current:
            others = [other for other in range(len(self._failures)) if other != place]
            self.current = min(others, key=lambda other: self._in_turn(other, now), default=place)

    def opened(self, place: int) -> None:
        """A dial opened there."""
        self._failures[place] = 0
        if place < self.current or self._failures[self.current]:
            self.current = place

    def _rest(self, place: int, now: float) -> None:
        self._retry_at[place] = now + REST * (1 - _SPREAD + 2 * _SPREAD * self._random())

    def _rank(self, place: int, now: float) -> tuple[int, float]:
        rested = self._failures[place] > 0 and now >= self._retry_at[place]
        return (0, place) if rested and place < self.current else self._in_turn(place, now)

    def _in_turn(self, place: int, now: float) -> tuple[int, float]:
        if self.ejected(place, now):
            return 2, self._retry_at[place]
        return 1, (place - self.current) % len(self._failures)
