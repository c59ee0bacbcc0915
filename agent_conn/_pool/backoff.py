"""When a pool may dial again after failures, by the retry policy."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from agent_conn._reconnect.retry import RetryPolicy, classify_failure
from agent_conn.errors import AgentConnError, ConnectError

RETRY_AFTER_CAP = 60.0
"""The longest ``Retry-After`` that is honoured, in seconds; a dial comes up to a tenth later."""


def may_help(error: Exception) -> bool:
    """Whether another dial may end better than the one that ended with ``error``."""
    return isinstance(error, AgentConnError) and classify_failure(error)


class Backoff:
    """Spaces dials from the first failure on, until ``reset``."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.since: float = inf
        """When the failure, or the last dial after it, was; infinite where there was none."""
        self._random = random
        self._delays = RetryPolicy().delays(random)
        self._delay = 0.0
        self._not_before = -inf

    def allows(self, now: float, longest: float = inf) -> bool:
        """Whether a dial may begin; ``longest`` bounds the time since the last one."""
        due = max(self.since + min(self._delay, longest), self._not_before)
        return self.since == inf or now >= due

    def begin(self, now: float) -> None:
        """A dial begins. While they fail, the next one has longer to wait."""
        if self.since < inf:
            self.since, self._delay = now, next(self._delays)

    def failed(self, now: float, error: Exception | None = None) -> None:
        """A dial failed, or what it opened did not last."""
        if self.since == inf:
            self._delays = RetryPolicy().delays(self._random)
            self.since, self._delay = now, next(self._delays)
        if isinstance(error, ConnectError) and error.retry_after is not None:
            wait = min(error.retry_after, RETRY_AFTER_CAP) * (1 + self._random() / 10)
            self._not_before = max(self._not_before, now + wait)

    def reset(self) -> None:
        """The failures are over."""
        self.since, self._not_before = inf, -inf
