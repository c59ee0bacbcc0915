"""When a pool may dial again after failures, by the retry policy."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from agent_conn._reconnect.retry import RetryPolicy, classify_failure
from agent_conn.errors import AgentConnError, ConnectError

POLICY = RetryPolicy()


def may_help(error: Exception) -> bool:
    """Whether another dial may end better than the one that ended with ``error``."""
    return isinstance(error, AgentConnError) and classify_failure(error)


class Backoff:
    """Spaces dials from the first failure on, until ``reset``."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.since: float = inf
        """When the failure, or the last dial after it, was; infinite where there was none."""
        self._random = random
        self._ceiling = POLICY.initial
        self._delay = 0.0
        self._not_before = -inf

    def allows(self, now: float, longest: float = inf) -> bool:
        """Whether a dial may begin; ``longest`` bounds the time since the last one."""
        due = max(self.since + min(self._delay, longest), self._not_before)
        return self.since == inf or now >= due

    def begin(self, now: float) -> None:
        """A dial begins. While they fail, the next one has longer to wait."""
        if self.since < inf:
            self._space(now, min(2 * self._ceiling, POLICY.cap))

    def failed(self, now: float, error: Exception | None = None) -> None:
        """A dial failed, or what it opened did not last."""
        if self.since == inf:
            self._space(now, POLICY.initial)
        if isinstance(error, ConnectError) and error.retry_after is not None:
            # Up to a tenth later, so that not all come at once.
            wait = min(error.retry_after, POLICY.retry_after_cap) * (1 + self._random() / 10)
            self._not_before = max(self._not_before, now + wait)

    def reset(self) -> None:
        """The failures are over."""
        self.since, self._not_before = inf, -inf

    def _space(self, now: float, ceiling: float) -> None:
        self.since, self._ceiling, self._delay = now, ceiling, self._random() * ceiling
