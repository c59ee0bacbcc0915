"""Whether another dial is worth it, and when. Pure: no I/O, no clock, no event loop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from agent_conn._checks import check_count
from agent_conn._reconnect.checks import check_number
from agent_conn.errors import (
    AgentConnError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    HandshakeRejected,
    OpenHookFailed,
    Phase,
    RetriesExhausted,
)

Classify = Callable[[AgentConnError], bool | None]
"""True: dial again. False: the failure is final. None: let ``classify_failure`` say."""
RandomSource = Callable[[], float]
"""Gives numbers from 0 to 1, as ``random.random`` does."""

REFILL = 60.0
"""Seconds in which an open connection gives the whole budget back."""
LONG_LIFE = 2.4
"""Seconds after which a lost connection is dialled again at once, whatever went before.

A second gives back ``attempts / REFILL``, so that with 25 attempts this life pays for its redial.
"""
_RETRIED_CLOSES = frozenset({1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4429})
_RESTARTS = frozenset({1012, 1013})
_TOO_MANY_REQUESTS = 429
_ERRORS_KEPT = 100
_ROUNDING = 1e-9


def classify_failure(error: AgentConnError) -> bool:
    """Whether another dial may help. This is the policy.

    ======================== =========================================== =====================
    error                    dialled again                               final
    ======================== =========================================== =====================
    ConnectTimeout           always
    DialFailed               otherwise                                   certificate refused;
                                                                         proxy's final status;
                                                                         session closed
    HandshakeRejected        408, 5xx, and 429 for any limit that passes any other status; 429
                                                                         for spent credits
    HandshakeInvalid                                                     always: a redirect,
                                                                         or no websocket
    TokenUnavailable         the callable raised                         it gave no token
    AttributionUnavailable   always
    OpenHookFailed           the connection dropped under the hook       the hook itself failed;
                                                                         a final close code
    ConnectionLost           1000, 1001, 1005, 1006, 1011 to 1014, 4408, any other code: 1002,
                             4429                                        1003, 1007 to 1010,
                                                                         1015, 3xxx, 4xxx
    ConfigurationError,                                                  always
    StateError, any other
    ======================== =========================================== =====================

    4408 and 4429 stand for the HTTP statuses 408 and 429. A quota of credits, such as LiveKit's
    ``MaxGatewayCredits``, stays spent until the next billing cycle.
    """
    if isinstance(error, ConnectionLost):
        return error.code in _RETRIED_CLOSES
    if isinstance(error, OpenHookFailed) and error.loss is not None:
        return error.retryable and error.loss.code in _RETRIED_CLOSES
    if isinstance(error, HandshakeRejected) and error.status == _TOO_MANY_REQUESTS:
        return error.retryable and not _has_spent_credits(error)
    return isinstance(error, ConnectError) and error.retryable


def is_outage(error: AgentConnError) -> bool:
    """Whether ``error`` tells of the origin, and not of this caller's token, hook or quota."""
    if isinstance(error, HandshakeRejected) and error.status == _TOO_MANY_REQUESTS:
        return False
    return isinstance(error, ConnectError) and error.phase in {Phase.DIAL, Phase.HANDSHAKE}


def _has_spent_credits(error: HandshakeRejected) -> bool:
    category = None if error.quota is None else error.quota.category
    return category is not None and "credit" in category.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast to dial again. Times are in seconds.

    A connection is judged by how long it lived, never by what it said. Each redial takes one
    from a budget of ``attempts``. A delay is a random part of a ceiling, which doubles with each
    failed dial and each connection that lived shorter than it. One that lived longer, or 2.4 s,
    is dialled again at once, sets the ceiling back, and has given back a sixtieth of the budget
    for each second.

    With the defaults a loop all but certainly outlasts an outage of a minute, and gives up
    after three to four where every dial fails at once.

    Raises:
        ConfigurationError: a value is out of range; the message names it.
    """

    attempts: int | None = 25
    """The redials before ``RetriesExhausted``; None: no limit."""
    initial: float = 1.0
    """The first ceiling."""
    cap: float = 20.0
    """The highest ceiling, and the longest delay that is not a peer's ``Retry-After``."""
    retry_after_cap: float = 60.0
    """The longest ``Retry-After`` that is honoured; a longer one counts as this."""
    restart_spread: float = 5.0
    """After close codes 1012 and 1013, a redial waits a random part of this (RFC 6455's registry
    of close codes asks for it), and never more than ``cap``."""
    share_health: bool = True
    """Share with other loops of this event loop whether their common origin answers: after five
    failures in a row one loop at a time dials, and the others follow once it is through."""
    classify: Classify | None = None
    """Asked before ``classify_failure``; what it raises ends the loop."""

    def __post_init__(self) -> None:
        if self.attempts is not None:
            check_count("attempts", self.attempts)
        for name in ("initial", "cap", "retry_after_cap", "restart_spread"):
            check_number(name, getattr(self, name))
        if not isinstance(self.share_health, bool):
            got = type(self.share_health).__name__
            raise ConfigurationError(f"share_health must be True or False, got {got}")
        if not (self.classify is None or callable(self.classify)):
            got = type(self.classify).__name__
            raise ConfigurationError(f"classify must be callable, got {got}")

    def retries(self, error: AgentConnError) -> bool:
        """Whether to dial again after ``error``.

        Raises:
            ConfigurationError: ``classify`` gave neither a bool nor None.
        """
        verdict: object = None if self.classify is None else self.classify(error)
        if verdict is None:
            return classify_failure(error)
        if not isinstance(verdict, bool):
            got = type(verdict).__name__
            raise ConfigurationError(f"classify must return True, False or None, got {got}")
        return verdict

    def ceilings(self) -> Iterator[float]:
        """What each delay in a row of failures is a random part of. Endless."""
        ceiling = min(self.initial, self.cap)
        while True:
            yield ceiling
            ceiling = min(ceiling * 2, self.cap)


class Pause(NamedTuple):
    """How long to wait before a dial, in seconds."""

    seconds: float
    least: float = 0.0
    """What the peer asked for: not to be cut short because others got through."""


class RetryBudget:
    """What one loop has spent of its policy: told what happened, it says how long to wait."""

    def __init__(self, policy: RetryPolicy, random: RandomSource) -> None:
        self._policy = policy
        self._random = random
        self._left = float(math.inf if policy.attempts is None else policy.attempts)
        self._errors: deque[AgentConnError] = deque(maxlen=_ERRORS_KEPT)
        self._failures = 0
        self._ceiling = 0.0
        self._set_back()

    @property
    def left(self) -> float | None:
        """The redials left; None without a limit."""
        return None if math.isinf(self._left) else self._left

    def failed(self, error: AgentConnError) -> Pause:
        """How long to wait after a dial that failed.

        Raises:
            RetriesExhausted: no redial is left.
            AgentConnError: ``error`` itself, being final.
        """
        self._failures += 1
        if isinstance(error, ConnectError):
            error.attempt = self._failures
        self._take(error)
        seconds = self._short_delay()
        asked = error.retry_after if isinstance(error, ConnectError) else None
        if asked is None:
            return Pause(seconds)
        least = min(asked, self._policy.retry_after_cap)
        # On top, since all that were told the same would come back together.
        return Pause(least + seconds, least)

    def lost(self, error: AgentConnError, lived: float, *, elsewhere: bool = False) -> Pause:
        """How long to wait after a connection that was open for ``lived`` seconds has ended.

        ``elsewhere``: whether the next dial is to another endpoint, which is not restarting.

        Raises:
            RetriesExhausted: no redial is left.
            AgentConnError: ``error`` itself, being final.
        """
        self._failures = 0
        short = lived < min(self._ceiling, LONG_LIFE)
        if not short:
            self._give_back(lived)
            self._set_back()
        self._take(error)
        seconds = self._short_delay() if short else 0.0
        if isinstance(error, ConnectionLost) and error.code in _RESTARTS and not elsewhere:
            spread = min(self._policy.restart_spread, self._policy.cap)
            seconds = max(seconds, self._random() * spread)
        return Pause(seconds)

    def _give_back(self, lived: float) -> None:
        if self._policy.attempts is not None:
            whole = float(self._policy.attempts)
            self._left = min(whole, self._left + lived * whole / REFILL)
            if self._left == whole:
                self._errors.clear()

    def _take(self, error: AgentConnError) -> None:
        error = error.with_traceback(None)
        if not self._policy.retries(error):
            raise error
        self._errors.append(error)
        if self._left < 1 - _ROUNDING:
            raise RetriesExhausted(
                f"gave up, since all {self._policy.attempts} redials are spent; "
                f"the last failure: {error}",
                attempts=self._errors,
            )
        self._left -= 1

    def _short_delay(self) -> float:
        delay = self._random() * self._ceiling
        self._ceiling = next(self._ceilings)
        return delay

    def _set_back(self) -> None:
        self._ceilings = self._policy.ceilings()
        self._ceiling = next(self._ceilings)
