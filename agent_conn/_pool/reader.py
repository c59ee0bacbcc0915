"""Receives from a websocket while nobody uses it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

EARLY_LIMIT = 16
"""Messages taken from an idle connection. One with more to say than that is closed."""

_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})


class IdleReader:
    """A ``receive()`` that is begun and stopped within one call.

    It is carried on by hand, by the callback of the future that it waits for: a task would
    take a turn of the event loop to end, and its making and ending cost more than a hit.

    Args:
        on_end: called where the websocket ends, or has said too much, while it is read here.
    """

    __slots__ = ("_on_end", "_receiving", "_waits_for", "_ws", "early", "ended")

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, on_end: Callable[[], object]) -> None:
        self.early: deque[aiohttp.WSMessage] = deque()
        """What came while nobody used it."""
        self.ended: bool = False
        self._ws = ws
        self._on_end = on_end
        self._receiving: Coroutine[Any, None, aiohttp.WSMessage] | None = None
        self._waits_for: asyncio.Future[object] | None = None

    def start(self) -> None:
        """Read from now on. Does nothing where it is being read, or has ended."""
        if self._receiving is None and not self.ended:
            self._receiving = self._ws.receive()
            self._go_on()

    def catch_up(self) -> bool:
        """Take what the event loop has read already; whether it waits for more then."""
        waits_for = self._waits_for
        if waits_for is None:
            return False
        if waits_for.done():
            self._go_on(waits_for)
        return self._waits_for is not None

    def stop(self) -> None:
        """Read no more. Nothing that came is lost if ``catch_up`` was called before."""
        receiving, self._receiving, self._waits_for = self._receiving, None, None
        if receiving is None:
            return
        try:
            receiving.throw(asyncio.CancelledError)
        except (asyncio.CancelledError, StopIteration):
            return

    def _go_on(self, waited_for: asyncio.Future[object] | None = None) -> None:
        if waited_for is not self._waits_for or self._receiving is None:
            # The callback of a reading that was stopped, or that has been carried on already.
            return
        try:
            self._waits_for = self._receiving.send(None)
        except StopIteration as end:
            self._take(end.value)
        except Exception:
            # Its borrower still reads it.
            self._end()
        else:
            if self._ws.closed:
                # It waits for the peer to answer a Close frame, which is for the one to do
                # who closes it.
                self.stop()
                self._end()
            else:
                self._waits_for.add_done_callback(self._go_on)

    def _take(self, message: aiohttp.WSMessage) -> None:
        self._receiving = self._waits_for = None
        if message.type in _DATA:
            self.early.append(message)
            if len(self.early) < EARLY_LIMIT:
                self.start()
                return
        self._end()

    def _end(self) -> None:
        self._receiving = self._waits_for = None
        self.ended = True
        self._on_end()
