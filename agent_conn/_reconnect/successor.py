"""One connection that is opened beside the one in use, and kept ready for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent_conn._connection import InferenceConnection
from agent_conn._dial.predial import Hold
from agent_conn._dial.websocket import InferenceWebSocket
from agent_conn._lifecycle import ConnectionState
from agent_conn._reconnect.ending import ended
from agent_conn.errors import AgentConnError


class Successor:
    """One attempt at a connection to follow the one in use, from its dial until it is taken over.

    Args:
        connection: not opened yet.
        accept: asked once it is open; False gives it up.
        redial: how many attempts of the loop went before.
        hold: for a spare, as for ``InferenceConnection.open``.
    """

    def __init__(
        self,
        connection: InferenceConnection,
        accept: Callable[[], bool] = lambda: True,
        *,
        redial: int = 0,
        hold: Hold | None = None,
    ) -> None:
        self.connection = connection
        self.opened_at: float = 0.0
        self.failure: AgentConnError | None = None
        """Why it did not open."""
        self._accept = accept
        self._redial = redial
        self._hold = hold
        self._taken = False
        self._parked = False
        self._decided = asyncio.Event()
        name = "agent_conn.successor" if hold is None else "agent_conn.spare"
        self._task = asyncio.create_task(self._run(), name=name)
        # Cancelled before its first step, a task cannot say so itself.
        self._task.add_done_callback(lambda _: self._decided.set())

    @property
    def ready(self) -> bool:
        """Whether the connection can be taken over now."""
        connection = self.connection
        alive = connection.state is ConnectionState.OPEN and not connection.is_closing()
        return self._parked and alive and not connection.ws.closed

    @property
    def over(self) -> bool:
        """Whether it was given up or lost, and is closed."""
        return self._task.done() and not self._taken and not self.ready

    async def decided(self) -> bool:
        """Wait until it is open or given up; whether it can be taken over."""
        await self._decided.wait()
        return self.ready

    async def take(self) -> bool:
        """Take the connection over; False where it has been lost, and is closed."""
        ws = self.connection.ws if self.ready else None
        if ws is None:
            await self.aclose()
            return False
        self._taken = True
        if isinstance(ws, InferenceWebSocket):
            await ws.unpark()
        await ended(self._task)
        if self.ready:
            return True
        await self.connection.aclose()
        return False

    async def aclose(self) -> None:
        """Give up, and close the connection."""
        self._task.cancel()
        try:
            await ended(self._task)
        finally:
            await self.connection.aclose()

    async def _run(self) -> None:
        try:
            if await self._open():
                await self._wait_for_pump()
        finally:
            if not self._taken and not self.ready:
                await self.connection.aclose()

    async def _wait_for_pump(self) -> None:
        ws = self.connection.ws
        self.opened_at = asyncio.get_running_loop().time()
        self._parked = True
        if not isinstance(ws, InferenceWebSocket):
            self._decided.set()
            return
        reading = ws.park()
        self._decided.set()
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            self._parked = self._taken

    async def _open(self) -> bool:
        try:
            await self.connection.open(wait=False, redial=self._redial, hold=self._hold)
        except AgentConnError as error:
            self.failure = error.with_traceback(None)
            return False
        return self._accept()
