"""A better-attributed connection, opened beside the one in use and kept ready for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._options import check_seconds
from agent_conn._reconnect.witness import Witness
from agent_conn._room import RoomConnected
from agent_conn.errors import AgentConnError, ConfigurationError

logger: logging.Logger = logging.getLogger("agent_conn")

Drain = Callable[[InferenceConnection], Awaitable[object]]
"""Finishes what is under way on a connection that another one has taken over from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradePolicy:
    """What a loop does when the room comes late. Times are in seconds.

    Raises:
        ConfigurationError: a value is wrong; the message names it.
    """

    room_connected: RoomConnected | None = None
    """Upgrade by itself once this is set; None: only when ``upgrade()`` is called."""
    jitter: float = 1.0
    """An upgrade by itself waits a random part of this, as one room moves many sockets."""
    drain: Drain | None = None
    """Awaited with the old connection once the new one is handed out; then it is closed.
    None: it is closed at once, so that the pump has to have read all it wants."""
    drain_timeout: float = 5.0
    """The longest that ``drain`` may take."""

    def __post_init__(self) -> None:
        if not (self.room_connected is None or isinstance(self.room_connected, RoomConnected)):
            raise ConfigurationError("room_connected has no is_set() and wait()")
        check_seconds("jitter", self.jitter, zero=True)
        check_seconds("drain_timeout", self.drain_timeout)
        if not (self.drain is None or callable(self.drain)):
            raise ConfigurationError("drain is not callable")


class Successor:
    """One attempt at a connection above ``level``, from its dial until it is taken over."""

    def __init__(self, connection: InferenceConnection, level: AttributionLevel) -> None:
        self.connection = connection
        self._level = level
        self._witness: Witness | None = None
        self._taken = False
        self._decided = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="agent_conn.upgrade")
        # Cancelled before its first step, a task cannot say so itself.
        self._task.add_done_callback(lambda _: self._decided.set())

    @property
    def ready(self) -> bool:
        """Whether the connection can be taken over now."""
        return self._witness is not None and self._witness.alive and not self._task.done()

    @property
    def over(self) -> bool:
        """Whether it was given up or lost, and is closed."""
        return self._task.done() and not self._taken

    async def decided(self) -> bool:
        """Wait until it is open or given up; whether it can be taken over."""
        await self._decided.wait()
        return self.ready

    async def take(self) -> Witness | None:
        """Take the connection over; None where it has been lost, and is closed."""
        witness = self._witness
        if witness is None or not self.ready:
            await self.aclose()
            return None
        self._taken = True
        await witness.unpark()
        await asyncio.wait({self._task})
        if witness.alive:
            return witness
        await self.connection.aclose()
        return None

    async def aclose(self) -> None:
        """Give up, and close the connection."""
        self._task.cancel()
        await asyncio.wait({self._task})
        await self.connection.aclose()

    async def _run(self) -> None:
        try:
            if await self._open():
                witness = self._witness = Witness(self.connection.ws)
                reading = witness.park()
                self._decided.set()
                try:
                    await asyncio.wait({reading})
                finally:
                    reading.cancel()
        finally:
            if not self._taken:
                await self.connection.aclose()

    async def _open(self) -> bool:
        try:
            await self.connection.open(wait=False)
        except AgentConnError as error:
            logger.warning("upgrade_failed", extra={"error": type(error).__name__})
            return False
        return self.connection.attribution > self._level
