"""When a pool may dial again after failures, by the retry policy."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from agent_conn._reconnect.retry import RetryPolicy
from agent_conn.errors import ConnectError

POLICY = RetryPolicy()


class Backoff:
    """Spaces dials from the first failure on, until ``reset``. Times are in seconds."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.reset()

    def reset(self) -> None:
        """The failures are over."""
        self.since = self._not_before = -inf
        """When the failure, or the last dial after it, was."""
        self._delay = 0.0
        self._ceilings = POLICY.ceilings()

    def allows(self, now: float, longest: float = inf) -> bool:
        """Whether a dial may begin; ``longest`` bounds the time since the last one."""
        return now >= max(self.since + min(self._delay, longest), self._not_before)

    def begin(self, now: float) -> None:
        """A dial begins. While they fail, the next one has longer to wait."""
        if self.since > -inf:
            self._space(now)

    def failed(self, now: float, error: Exception | None = None) -> None:
        """A dial failed, or what it opened did not last."""
        if self.since == -inf:
            self._space(now)
        if isinstance(error, ConnectError) and error.retry_after is not None:
            # Up to a tenth later, so that not all come at once.
            wait = min(error.retry_after, POLICY.retry_after_cap) * (1 + self._random() / 10)
            self._not_before = max(self._not_before, now + wait)

    def _space(self, now: float) -> None:
        self.since, self._delay = now, self._random() * next(self._ceilings)
