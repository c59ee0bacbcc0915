"""Whether another dial is worth it, and when. Pure: no I/O, no clock, no event loop."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent_conn.errors import (
    AgentConnError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    RetriesExhausted,
)

Classify = Callable[[AgentConnError], bool | None]
"""True: dial again. False: the failure is final. None: let ``classify_failure`` say."""
RandomSource = Callable[[], float]
"""Gives numbers from 0 to 1, as ``random.random`` does."""

_RETRIED_CLOSES = frozenset({1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014})
_ERRORS_KEPT = 100


def classify_failure(error: AgentConnError) -> bool:
    """Whether another dial may help. This is the policy.

    Dialled again:

    - ``ConnectTimeout``, in whatever phase.
    - ``DialFailed``, unless TLS refused the certificate, the proxy answered with a final
      status, or the session is closed.
    - ``HandshakeRejected`` with 408, 429 or any 5xx.
    - ``TokenUnavailable`` where the callable raised; ``AttributionUnavailable``.
    - ``OpenHookFailed`` where the connection was lost under it.
    - ``ConnectionLost`` with 1001, 1005, 1006 or 1011 to 1014; and 1000, by which the peer
      ends a session that the caller may want to go on with.

    Final:

    - ``HandshakeRejected`` with any other status; ``HandshakeInvalid``, which is a redirect
      or no websocket.
    - ``TokenUnavailable`` where the callable gave no usable token.
    - ``OpenHookFailed`` where the hook itself failed.
    - ``ConnectionLost`` with any other code: 1002, 1003, 1007 to 1010, 1015 and those that
      applications define.
    - ``ConfigurationError``, ``StateError`` and everything else.
    """
    if isinstance(error, ConnectionLost):
        return error.code in _RETRIED_CLOSES
    return isinstance(error, ConnectError) and error.retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast to dial again. Times are in seconds.

    With the defaults a loop all but certainly outlasts an outage of a minute, and gives up
    after three to four where every dial fails at once.

    Raises:
        ConfigurationError: a value is out of range; the message names it.
    """

    attempts: int | None = 25
    """Attempts in a row without proof before ``RetriesExhausted``; None: no limit."""
    initial: float = 1.0
    """The first delay is a random part of this."""
    factor: float = 2.0
    """How much longer each next delay may be."""
    cap: float = 20.0
    """The longest delay of the policy's own."""
    retry_after_cap: float = 60.0
    """The longest ``Retry-After`` that is honoured; a longer one counts as this."""
    stable_after: float = 10.0
    """How long a connection has to be open to have proved itself without a message."""
    quick_failures: int = 3
    """Connections in a row that open and end without proof before ``RetriesExhausted``.

    As many in a row that did prove themselves, but ended before ``stable_after``, end the
    privilege of a redial at once: from then on the delays grow.
    """
    classify: Classify | None = None
    """Asked before ``classify_failure``; what it raises ends the loop."""

    def __post_init__(self) -> None:
        if self.attempts is not None:
            _check_count("attempts", self.attempts)
        _check_count("quick_failures", self.quick_failures)
        _check_number("factor", self.factor, least=1.0)
        for name in ("initial", "cap", "retry_after_cap", "stable_after"):
            _check_number(name, getattr(self, name), least=0.0)
        if not (self.classify is None or callable(self.classify)):
            raise ConfigurationError("classify is not callable")

    def retries(self, error: AgentConnError) -> bool:
        """Whether to dial again after ``error``."""
        verdict = None if self.classify is None else self.classify(error)
        return classify_failure(error) if verdict is None else verdict

    def delays(self, random: RandomSource) -> Iterator[float]:
        """Seconds to wait before each dial in a row of failures, with full jitter. Endless."""
        ceiling = min(self.initial, self.cap)
        while True:
            yield random() * ceiling
            ceiling = min(ceiling * self.factor, self.cap)


class RetryBudget:
    """What one loop has spent of its policy: told what happened, it says how long to wait."""

    def __init__(self, policy: RetryPolicy, random: RandomSource) -> None:
        self._policy = policy
        self._random = random
        self._delays = policy.delays(random)
        self._errors: deque[AgentConnError] = deque(maxlen=policy.attempts or _ERRORS_KEPT)
        self._spent = 0
        self._unproven = 0
        self._short = 0

    @property
    def spent(self) -> int:
        """Attempts in a row without proof."""
        return self._spent

    def failed(self, error: AgentConnError) -> float:
        """Seconds to wait after a dial that failed.

        Raises:
            RetriesExhausted: this was the last attempt.
            AgentConnError: ``error`` itself, being final.
        """
        self._spent += 1
        if isinstance(error, ConnectError):
            error.attempt = self._spent
        if not self._policy.retries(error):
            raise error.with_traceback(None)
        self._errors.append(error.with_traceback(None))
        if self._spent == self._policy.attempts:
            raise self._exhausted(f"gave up after {self._spent} attempts; the last: {error}")
        delay = next(self._delays)
        if isinstance(error, ConnectError) and error.retry_after is not None:
            delay = max(delay, min(error.retry_after, self._policy.retry_after_cap))
        return delay

    def lost(self, error: AgentConnError, *, proven: bool, stable: bool) -> float:
        """Seconds to wait after a connection that was open has ended.

        ``proven``: a message was received, or it was stable. ``stable``: it was open for
        ``stable_after``.

        Raises:
            RetriesExhausted: too many in a row did not prove themselves.
            AgentConnError: ``error`` itself, being final.
        """
        if proven or stable:
            return self._lost_proven(error, stable=stable)
        delay = self.failed(error)
        self._unproven += 1
        if self._unproven == self._policy.quick_failures:
            raise self._exhausted(
                f"{self._unproven} connections in a row ended at once; the last: {error}"
            )
        return delay

    def _lost_proven(self, error: AgentConnError, *, stable: bool) -> float:
        self._spent = self._unproven = 0
        self._errors.clear()
        if not self._policy.retries(error):
            raise error
        if stable:
            self._short = 0
            self._delays = self._policy.delays(self._random)
            return 0.0
        # A gateway that says why it hangs up proves each connection: it must not be dialled
        # at the pace of its refusals.
        self._short += 1
        return 0.0 if self._short < self._policy.quick_failures else next(self._delays)

    def _exhausted(self, message: str) -> RetriesExhausted:
        return RetriesExhausted(message, attempts=self._errors)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} is not a whole number of 1 or more")


def _check_number(name: str, value: object, *, least: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= sys.float_info.max:  # type: ignore[operator]
        raise ConfigurationError(f"{name} is not a finite number of {least:g} or more")
