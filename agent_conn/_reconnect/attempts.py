"""The dials of one loop, one after another: made, paced, and judged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agent_conn._connection import InferenceConnection
from agent_conn._log import log
from agent_conn._options import kind
from agent_conn._reconnect.health import OriginHealth, Redial, health_of
from agent_conn._reconnect.retry import Pause, RandomSource, RetryBudget, RetryPolicy, is_outage
from agent_conn._reconnect.standby import HeldDial
from agent_conn._reconnect.statistics import StatisticsBuilder
from agent_conn.errors import (
    AgentConnError,
    ConfigurationError,
    DialFailed,
    OpenHookFailed,
    Phase,
)

DialFactory = Callable[[], InferenceConnection]
"""Makes a fresh connection, usually a ``functools.partial`` of ``InferenceConnection``."""


class Attempts:
    """The attempts of one loop. Successors and spares are dialled beside them, and not counted.

    Args:
        dial: makes a fresh connection.
        retry: the loop's policy.
        random: gives numbers from 0 to 1.
        statistics: where the loop counts.
    """

    def __init__(
        self,
        dial: DialFactory,
        retry: RetryPolicy,
        random: RandomSource,
        statistics: StatisticsBuilder,
    ) -> None:
        self.budget = RetryBudget(retry, random)
        self.opening: InferenceConnection | None = None
        self.begun: int = 0
        """How many there were."""
        self._dial = dial
        self._retry = retry
        self._random = random
        self._counted = statistics
        self._health = OriginHealth()
        self._redial: Redial | None = None
        self._stopped = False

    def wake(self) -> None:
        """End the wait between two attempts, if there is one."""
        if self._redial is not None:
            self._redial.dial_now()

    def stop(self) -> None:
        """Judge no more: what fails now was ended by the loop."""
        self._stopped = True
        self.wake()

    def make(self) -> InferenceConnection:
        """A fresh connection."""
        connection: object = self._dial()
        if isinstance(connection, InferenceConnection):
            return connection
        raise ConfigurationError(f"dial must return an InferenceConnection, got {kind(connection)}")

    def make_beside(self) -> InferenceConnection:
        """A fresh connection to open beside the one in use, which no failure may end.

        Raises:
            AgentConnError: there is none.
        """
        failure: AgentConnError
        try:
            return self.make()
        except AgentConnError as error:
            failure = error.with_traceback(None)
        except Exception as error:
            # Its text may hold a secret.
            failure = ConfigurationError(f"dial raised {type(error).__name__}")
        raise failure

    async def wait(self, pause: Pause) -> None:
        """Wait as long as ``pause`` and the origin's health ask for."""
        log(
            logging.INFO,
            "redial_scheduled",
            delay=round(pause.seconds, 3),
            redials_left=self.budget.left,
        )
        started = _now()
        redial = self._redial = Redial(started + pause.seconds, started + pause.least, self._random)
        try:
            await self._health.wait(redial)
        finally:
            self._redial = None
            self._counted.count(waited=_now() - started)

    def must_wait(self, pause: Pause) -> bool:
        """Whether there is something to wait for."""
        return pause.seconds > 0 or self._health.down

    async def attempt(self) -> InferenceConnection | Pause:
        """Dial once. Returns what is open, or how long to wait before the next."""
        redial = self._begin()
        connection = self.opening = self.make()
        try:
            await connection.open(wait=redial == 0, redial=redial)
        except AgentConnError as error:
            return self._failed(_complete(error, connection), connection)
        finally:
            self.opening = None
        self._share_health(connection).opened()
        return connection

    async def attempt_with(self, spare: HeldDial) -> InferenceConnection | Pause:
        """Dial once, on a spare's connection. One that turns out dead is no attempt."""
        connection = self.opening = spare.connection
        try:
            await spare.open()
        except AgentConnError as error:
            failure = _complete(error, connection)
            if _was_dead(connection, failure):
                self._counted.count(spares_failed=1)
                return Pause(0.0)
            self._begin()
            return self._failed(failure, connection)
        finally:
            self.opening = None
        self._begin()
        if connection.record.pre_dialed:
            self._counted.count(spares_used=1)
        self._share_health(connection).opened()
        return connection

    def _begin(self) -> int:
        redial, self.begun = self.begun, self.begun + 1
        self._counted.count(dials=1)
        return redial

    def _failed(self, failure: AgentConnError, connection: InferenceConnection) -> Pause:
        if self._stopped:
            return Pause(0.0)
        self._counted.count(failed=1)
        self._counted.last_error = failure
        if is_outage(failure):
            self._share_health(connection).failed(self._random)
        return self.budget.failed(failure)

    def _share_health(self, connection: InferenceConnection) -> OriginHealth:
        """The health of where ``connection`` leads."""
        if self._retry.share_health and connection.url.host:
            self._health = health_of(connection.endpoints or connection.url.origin())
        return self._health


def _was_dead(connection: InferenceConnection, failure: AgentConnError) -> bool:
    """Whether the peer had hung up on a spare's connection before it was used."""
    hung_up = isinstance(failure, DialFailed) and failure.phase is Phase.HANDSHAKE
    return hung_up and connection.record.pre_dialed


def _complete(error: AgentConnError, connection: InferenceConnection) -> AgentConnError:
    """``error`` of a dial, with how the connection ended where its hook met the end."""
    if isinstance(error, OpenHookFailed) and error.retryable:
        # A Close that the hook had not read yet was read since.
        error.loss = error.loss or connection.loss
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
