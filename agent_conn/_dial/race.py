"""Open one websocket at the first of several endpoints that gives one.

Each endpoint has a dial of its own, whose TCP and TLS may run beside another's. A dial that has
them waits for its turn to send: one endpoint at a time is sent the Upgrade.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from yarl import URL

from agent_conn._dial.close import OpenWebSocket
from agent_conn._dial.endpoint_health import answer_by, begins_at, is_endpoints_fault
from agent_conn._dial.endpoints import Endpoints
from agent_conn._dial.handshake import Dial, Prepare, ReadHeaders, Turn
from agent_conn._log import log
from agent_conn._record import RecordBuilder
from agent_conn.errors import AgentConnError, ConnectError, ConnectTimeout, Phase

MakeDial = Callable[[RecordBuilder, URL, Turn], Dial]
"""Makes a dial, which keeps the record up to date and awaits its turn before it sends."""


class Attempt:
    """A dial to one endpoint, which may be one of several side by side."""

    def __init__(self, place: int) -> None:
        self.place: int = place
        self.record: RecordBuilder = RecordBuilder()
        """What this dial alone has come to."""
        self.has_turn: bool = False
        """Whether it was told to send the request."""
        self.dial: Dial
        self.task: asyncio.Task[OpenWebSocket]

    def is_connected(self) -> bool:
        """Whether TCP and TLS are up, and nothing is sent yet."""
        pre_dial = self.dial.pre_dial
        return pre_dial is not None and pre_dial.is_ready()

    def is_queued(self) -> bool:
        """Whether it waits for one of the connector's connections to become free."""
        pre_dial = self.dial.pre_dial
        return pre_dial is not None and pre_dial.events.queued


class EndpointsDial:
    """One attempt to open a websocket, at any of ``endpoints``.

    Args:
        endpoints: where to; told what is found.
        make_dial: makes a dial to one of them.
        record: kept up to date.
        deadline: gives the time by which the websocket is to be open, or None.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        make_dial: MakeDial,
        record: RecordBuilder,
        deadline: Callable[[], float | None],
    ) -> None:
        endpoints.enter()
        self._endpoints = endpoints
        self._health = endpoints.health
        self._make_dial = make_dial
        self._record = record
        self._deadline = deadline
        self._attempts: list[Attempt] = []
        self._shown: Attempt | None = None
        self._sending = asyncio.Lock()
        self._last_began = -math.inf
        self._prepared: asyncio.Task[None] | None = None
        self._now = asyncio.get_running_loop().time

    async def open(
        self,
        *,
        headers: Mapping[str, str],
        read_headers: ReadHeaders,
        prepare: Prepare | None,
    ) -> OpenWebSocket:
        """Open the websocket, as ``Dial.open`` does.

        Raises:
            AgentConnError: it did not open at any of them; nothing is left.
        """
        if prepare is not None:
            self._prepared = asyncio.create_task(_run(prepare), name="agent_conn.prepare")
        won: Attempt | None = None
        try:
            while won is None:
                timeout = self._begin_what_is_due(headers, read_headers)
                await asyncio.wait(
                    self._under_way(), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                won = self._opened()
        finally:
            await self._end_all_but(won)
        return won.task.result()

    def told_at_expiry(self, seconds: float) -> ConnectError | None:
        """What is known of why the attempt has not ended after ``seconds``, or None."""
        return None if self._shown is None else self._shown.dial.told_at_expiry(seconds)

    def expired(self, failure: AgentConnError) -> None:
        """Count ``failure``, as which open_timeout ran out, against whom it waited for."""
        if not is_endpoints_fault(failure):
            return
        for attempt in self._attempts:
            alone = self._sending.locked()
            waited_for = attempt is self._shown or (not alone and attempt.task.cancelled())
            if waited_for and not attempt.is_queued():
                self._note_failure(attempt, type(failure).__name__)

    def _begin_what_is_due(
        self, headers: Mapping[str, str], read_headers: ReadHeaders
    ) -> float | None:
        """Dial the next endpoint, if it is time. Returns the seconds until the one after it."""
        while (at := self._next_at()) <= self._now():
            place = self._health.choose({one.place for one in self._attempts}, self._now())
            if place is None:
                self._last_began = math.inf
                continue
            self._last_began = self._now()
            self._health.began(place, self._last_began)
            self._begin(Attempt(place), headers, read_headers)
        return None if math.isinf(at) else at - self._now()

    def _next_at(self) -> float:
        connected = self._sending.locked() or any(
            not one.task.done() and one.is_connected() for one in self._attempts
        )
        return begins_at(self._last_began, connected=connected)

    def _begin(
        self, attempt: Attempt, headers: Mapping[str, str], read_headers: ReadHeaders
    ) -> None:
        share = asyncio.timeout(None)
        attempt.dial = self._make_dial(
            attempt.record,
            self._endpoints.urls[attempt.place],
            lambda: self._wait_for_turn(attempt, share),
        )
        self._attempts.append(attempt)
        if not self._sending.locked():
            self._show(attempt)
        waits = self._prepared is not None and not self._prepared.done()
        opening = partial(
            attempt.dial.open,
            headers=headers,
            read_headers=read_headers,
            prepare=self._when_prepared if waits else None,
        )
        attempt.task = asyncio.create_task(
            self._try(attempt, share, opening), name="agent_conn.endpoint"
        )

    async def _try(
        self,
        attempt: Attempt,
        share: asyncio.Timeout,
        opening: Callable[[], Awaitable[OpenWebSocket]],
    ) -> OpenWebSocket:
        # An eager task begins before its attempt has it.
        await asyncio.sleep(0)
        try:
            async with share:
                return await opening()
        except AgentConnError as error:
            failure = error
        except TimeoutError:
            failure = ConnectTimeout(
                "the handshake was not answered within its share of open_timeout",
                phase=Phase.HANDSHAKE,
            )
        if is_endpoints_fault(failure):
            self._note_failure(attempt, type(failure).__name__)
            # At once, and whoever waits for its turn has it.
            self._last_began = -math.inf
            if attempt.has_turn:
                self._sending.release()
        raise failure

    async def _wait_for_turn(self, attempt: Attempt, share: asyncio.Timeout) -> None:
        await self._sending.acquire()
        attempt.has_turn = True
        self._show(attempt)
        failed = sum(one.task.done() for one in self._attempts)
        now, left = self._now(), len(self._endpoints.urls) - failed
        self._record.connected_at = now
        share.reschedule(answer_by(now, self._deadline(), left))

    def _opened(self) -> Attempt | None:
        """The attempt that has opened, or None while one may.

        Raises:
            AgentConnError: one was refused, or all have failed.
        """
        ended = [one for one in self._attempts if one.task.done()]
        for attempt in ended:
            error = attempt.task.exception()
            if error is None:
                self._note_success(attempt)
                return attempt
            if not isinstance(error, AgentConnError) or not is_endpoints_fault(error):
                self._show(attempt)
                raise error
        if len(ended) == len(self._endpoints.urls):
            # A final one would have a loop give up that may dial another one again.
            told = next((one for one in reversed(ended) if _is_retryable(one)), ended[-1])
            self._show(told)
            told.task.result()
        return None

    def _note_success(self, won: Attempt) -> None:
        for attempt in self._attempts[: self._attempts.index(won)]:
            if not attempt.task.done() and not attempt.is_connected():
                self._note_failure(attempt, "slower than the next")
        self._health.opened(won.place)
        self._show(won)

    def _note_failure(self, attempt: Attempt, error: str) -> None:
        self._health.failed(attempt.place, self._now())
        log(
            logging.WARNING,
            "endpoint_failed",
            session_id=self._record.session_id,
            url=str(self._endpoints.shown(attempt.place)),
            error=error,
        )

    def _show(self, attempt: Attempt) -> None:
        """Have the record tell of ``attempt``."""
        self._shown = attempt
        self._record.take(attempt.record)
        self._record.dials = sum(one.record.dials for one in self._attempts)
        self._record.endpoint = self._endpoints.shown(attempt.place)

    def _under_way(self) -> set[asyncio.Task[OpenWebSocket] | asyncio.Task[None]]:
        tasks: set[asyncio.Task[OpenWebSocket] | asyncio.Task[None]] = {
            one.task for one in self._attempts
        }
        if self._prepared is not None:
            # A connection that died meanwhile is dialled again now, which may take long.
            tasks.add(self._prepared)
        return {task for task in tasks if not task.done()}

    async def _when_prepared(self) -> None:
        assert self._prepared is not None
        await asyncio.wait({self._prepared})
        self._prepared.result()

    async def _end_all_but(self, won: Attempt | None) -> None:
        """End what else is under way, however often this is cancelled."""
        cancelled: asyncio.CancelledError | None = None
        left = self._under_way()
        for task in left:
            task.cancel()
        while left:
            try:
                _, left = await asyncio.wait(left)
            except asyncio.CancelledError as error:
                cancelled, left = error, self._under_way()
        if self._prepared is not None and not self._prepared.cancelled():
            self._prepared.exception()
        for attempt in self._attempts:
            unwanted = attempt is not won or cancelled is not None
            if attempt.task.cancelled() or attempt.task.exception() is not None or not unwanted:
                continue
            await attempt.task.result().abort()
        if cancelled is not None:
            raise cancelled


async def _run(prepare: Prepare) -> None:
    await prepare()


def _is_retryable(attempt: Attempt) -> bool:
    error = attempt.task.exception()
    return isinstance(error, ConnectError) and error.retryable
