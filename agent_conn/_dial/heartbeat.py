"""Pings where nothing comes, and the end of a connection whose peer does not answer them.

aiohttp's own heartbeat takes a consumer that pauses, or an event loop that is held up, for a
dead peer: the answer is there, and nobody has read it. This one judges only what it has
waited for.
"""

from __future__ import annotations

import asyncio

import aiohttp

from agent_conn._dial.network import Link
from agent_conn._dial.websocket import Arrivals

_LATE = 0.2
"""Seconds that a timer may be late before the time until then says nothing about the peer."""


class Heartbeat:
    """Pings ``ws`` every ``interval`` seconds without a frame; a dead peer is found in 1.5 times.

    Args:
        interval: seconds, or None for no pings.
    """

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        arrivals: Arrivals,
        link: Link,
        interval: float | None,
    ) -> None:
        self.failed: bool = False
        """Whether the peer did not answer, and the connection was dropped for that."""
        self._ws = ws
        self._arrivals = arrivals
        self._link = link
        self._interval = interval or 0.0
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._pinged_at: float | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        if interval is not None:
            self._arm(self._started_at + interval)

    def stop(self) -> None:
        """Ping no more."""
        self._interval = 0.0
        if self._timer is not None:
            self._timer.cancel()
        if self._pinging is not None:
            self._pinging.cancel()

    def _arm(self, due: float) -> None:
        self._due = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        if self._link.transport.is_closing() or self._ws.closed:
            return
        now = self._loop.time()
        last = self._arrivals.last or self._started_at
        asked = self._pinged_at
        if asked is None or last >= asked:
            self._pinged_at = None
            due = last + self._interval
            if due > now:
                self._arm(due)
            else:
                self._ping(now)
        elif now - self._due > _LATE or not self._listened_since(asked):
            # Nobody could have heard an answer.
            self._ping(now)
        else:
            self.failed = True
            self._link.abort()

    def _listened_since(self, moment: float) -> bool:
        waiting = self._arrivals.waiting_since
        return waiting is not None and waiting <= moment

    def _ping(self, now: float) -> None:
        self._pinged_at = now
        self._arm(now + self._interval / 2)
        # Where something is still to be sent, the kernel bounds how long (network_timeout).
        if not self._link.is_behind():
            self._pinging = self._loop.create_task(self._send_ping(), name="agent_conn.ping")

    async def _send_ping(self) -> None:
        try:
            await self._ws.ping()
        except ConnectionError:
            # The next read shows the end.
            return
