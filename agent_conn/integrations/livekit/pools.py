"""Refresh LiveKit's pools of connections that were opened before the room was connected."""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from contextvars import ContextVar
from types import FrameType
from typing import Any

import aiohttp
from livekit.agents.utils import ConnectionPool

from agent_conn._attribution import AttributionMiddleware, names_caller
from agent_conn._identity import (
    DEFAULT_HEADER_NAMES,
    AttributionLevel,
    IdentitySource,
    read_identity,
)
from agent_conn._options import Handler
from agent_conn._room import RoomConnected

_Pool = ConnectionPool[Any]
_FRAMES = 8
"""How far up a pool is looked for; in 1.8.9 it is the fourth frame."""

_dialing: ContextVar[weakref.ref[_Pool] | None] = ContextVar("agent_conn.dialing_pool")

logger: logging.Logger = logging.getLogger("agent_conn")


def dialing_pool() -> _Pool | None:
    """The ``ConnectionPool`` that called the caller of this in order to dial, or None.

    LiveKit Agents 1.8.9 gives no public way from an ``inference.TTS`` to its pool, nor a pool a
    way to be told of a change, though a pool's ``invalidate()`` is public and does just what is
    needed. So this looks for a pool among the callers, as the ``self`` of a frame. It names no
    private attribute, and serves any plugin that uses such a pool; should a release call in
    another way, no pool is found, and its sockets stay as they were opened.
    """
    frame: FrameType | None = inspect.currentframe()
    try:
        for _ in range(_FRAMES):
            if frame is None:
                break
            owner = frame.f_locals.get("self")
            if isinstance(owner, ConnectionPool):
                return owner
            frame = frame.f_back
    finally:
        del frame
    return None


class PoolRefresher:
    """A session's middleware that has pools dial again once the room is connected.

    Sockets in use stay until they are given back; idle ones are closed when the pool is next
    asked, and one is opened in advance.
    """

    def __init__(
        self,
        attribution: AttributionMiddleware,
        identity: IdentitySource,
        room_connected: RoomConnected,
    ) -> None:
        self._attribution = attribution
        self._identity = identity
        self._room_connected = room_connected
        self._stale: list[tuple[weakref.ref[_Pool], aiohttp.ClientResponse]] = []
        self._task: asyncio.Task[None] | None = None

    def note_caller(self) -> None:
        """Remember, for the request that follows in this context, the pool that dials it."""
        pool = dialing_pool()
        # The request may run in a task of its own, where no caller is to be seen.
        _dialing.set(None if pool is None else weakref.ref(pool))

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        """Pass ``request`` on, and keep in mind what it opens, if a pool keeps it."""
        response = await handler(request)
        pool = _dialing.get(None)
        if pool is not None and self._attribution.covers(request.url) and self._can_rise(request):
            self._stale.append((pool, response))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._refresh(), name="agent_conn.refresh_pools")
        return response

    async def aclose(self) -> None:
        """Refresh no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _can_rise(self, request: aiohttp.ClientRequest) -> bool:
        if DEFAULT_HEADER_NAMES.agent_id in request.headers:
            return False
        return names_caller(request.headers, read_identity(self._identity))

    async def _refresh(self) -> None:
        try:
            await self._room_connected.wait()
        except Exception as error:
            logger.warning("pool_refresh_failed", extra={"error": type(error).__name__})
            return
        stale, self._stale = self._stale, []
        if read_identity(self._identity).level < AttributionLevel.AGENT:
            return
        pools = {pool() for pool, response in stale if not response.closed}
        for pool in pools - {None}:
            assert pool is not None
            pool.invalidate()
            pool.prewarm()
        logger.info("pools_refreshed", extra={"pools": len(pools)})
