"""The sessions that dial for one of the caller's, which they stand beside.

aiohttp's ``ws_connect`` takes no middleware, and a session takes none after it was made. So
each of the caller's sessions gets one beside it that shares its connector, cookies and trace
configs, and hands every request to the guard of the dial that made it. A second one only
connects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from weakref import WeakKeyDictionary, finalize

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from agent_conn._options import Handler

Guard = Callable[["TrackedRequest", Handler], Awaitable[aiohttp.ClientResponse]]

guards: dict[asyncio.Task[Any] | None, Guard] = {}
"""The guard of the dial that a task has under way. Not a context variable: callbacks and
timers of the connection would keep that one, and the dial with it, for the connection's life."""

logger: logging.Logger = logging.getLogger("agent_conn")

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
"""``open_timeout`` bounds a dial, and the wait a pre-dial while it runs beside it."""


class TrackedRequest(aiohttp.ClientRequest):
    """Tells its dial of the connection, between the dial and the request."""

    on_connected: Callable[[Connection], None]

    def send(self, conn: Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Send the request on ``conn``."""
        self.on_connected(conn)
        return super().send(conn)


class OwnSession:
    """The sessions beside ``caller``, and the proxies that ``caller`` would use."""

    def __init__(self, caller: aiohttp.ClientSession) -> None:
        self.client: aiohttp.ClientSession = aiohttp.ClientSession(
            connector=caller.connector,
            connector_owner=False,
            cookie_jar=caller.cookie_jar,
            skip_auto_headers=caller.skip_auto_headers,
            version=aiohttp.HttpVersion(*caller.version),
            trace_configs=caller.trace_configs,
            timeout=_NO_TIMEOUT,
            request_class=TrackedRequest,
            middlewares=(_hand_to_guard,),
        )
        self.connecting: aiohttp.ClientSession = aiohttp.ClientSession(
            connector=caller.connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUT,
        )
        """For requests that are only made to connect, which the trace configs do not see."""
        self.proxies: dict[URL, URL | None] = {}
        """The proxy that ``caller`` would use, by origin, as far as ``find_proxy`` was asked."""

    async def find_proxy(self, caller: aiohttp.ClientSession, origin: URL) -> None:
        """Find the proxy that ``caller`` would use for ``origin``; nothing is dialled.

        aiohttp shows it to a middleware alone, so the trace configs see one request for each
        origin, which ends in an exception.
        """
        try:
            await caller.get(origin, middlewares=(_look,))
        except _ProxyFound as found:
            self.proxies[origin] = found.proxy
        except Exception as error:
            # A session whose requests are mocked never comes to a middleware.
            logger.debug("proxy_unknown", extra={"error": type(error).__name__})


_beside: WeakKeyDictionary[aiohttp.ClientSession, OwnSession] = WeakKeyDictionary()


def own_session(caller: aiohttp.ClientSession) -> OwnSession:
    """The sessions beside ``caller``, made on first use and given up with ``caller``."""
    own = _beside.get(caller)
    if own is None:
        own = _beside[caller] = OwnSession(caller)
        finalize(caller, own.client.detach)
        finalize(caller, own.connecting.detach)
    return own


def _hand_to_guard(
    request: aiohttp.ClientRequest, handler: Handler
) -> Awaitable[aiohttp.ClientResponse]:
    assert isinstance(request, TrackedRequest)
    return guards[asyncio.current_task()](request, handler)


def request_proxy(request: aiohttp.ClientRequest) -> URL | None:
    """The proxy that ``request`` goes through, with its user and password."""
    proxy, auth = request.proxy, request.proxy_auth
    if proxy is not None and auth is not None:
        proxy = proxy.with_user(auth.login).with_password(auth.password)
    return proxy


async def _look(request: aiohttp.ClientRequest, _: Handler) -> aiohttp.ClientResponse:
    raise _ProxyFound(request_proxy(request))


class _ProxyFound(Exception):
    """Ends a request that was only made to see its proxy."""

    def __init__(self, proxy: URL | None) -> None:
        super().__init__()
        self.proxy = proxy
