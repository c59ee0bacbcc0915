"""Find the proxy that a session would use, which aiohttp shows to a middleware alone."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from agent_conn.settings import Handler

# Asking takes as long as a fifth of a handshake, and a session's answer stays the same.
_known: WeakKeyDictionary[aiohttp.ClientSession, dict[URL, URL | None]] = WeakKeyDictionary()


async def session_proxy(session: aiohttp.ClientSession, url: URL) -> URL | None:
    """The proxy that ``session`` would use for ``url``; nothing is dialled.

    Its trace configs see one request for each origin, which ends in an exception.
    """
    known = _known.get(session)
    if known is None:
        known = _known[session] = {}
    origin = url.origin()
    if origin not in known:
        try:
            await session.get(origin, middlewares=(_look,))
        except _Found as found:
            known[origin] = found.proxy
        except Exception:
            # A session whose requests are mocked never comes to a middleware.
            return None
    return known[origin]


async def _look(request: aiohttp.ClientRequest, _: Handler) -> aiohttp.ClientResponse:
    proxy, auth = request.proxy, request.proxy_auth
    if proxy is not None and auth is not None:
        proxy = proxy.with_user(auth.login).with_password(auth.password)
    raise _Found(proxy)


class _Found(Exception):
    """Ends a request that was only made to see its proxy."""

    def __init__(self, proxy: URL | None) -> None:
        super().__init__()
        self.proxy = proxy
