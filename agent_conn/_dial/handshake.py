"""Open one websocket through the caller's own session, in one request.

aiohttp's ``ws_connect`` takes no middleware, follows redirects with the identity headers, dials
a second time in silence, and drops a rejection's body. It is therefore called on a view of the
session, whose requests go to the session itself and through a guard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import TypeVar
from urllib.request import getproxies

import aiohttp
from yarl import URL

from agent_conn._dial.close import OpenWebSocket
from agent_conn._dial.network import Link, watch_network
from agent_conn._dial.predial import PreDial
from agent_conn._dial.seams import check_opened, check_seams
from agent_conn._dial.session_view import view_of
from agent_conn._dial.translate import (
    MAX_BODY,
    dial_failed,
    handshake_failed,
    rejected,
    shown_headers,
)
from agent_conn._dial.websocket import InferenceWebSocket
from agent_conn._identity import AgentIdentity
from agent_conn._options import DialOptions, Handler, check_proxy
from agent_conn._record import RecordBuilder
from agent_conn._secrets import Secrets
from agent_conn._usage import MeteredMessages
from agent_conn.errors import (
    AgentConnError,
    ConnectError,
    ConnectTimeout,
    DialFailed,
    HandshakeInvalid,
    HandshakeRejected,
)

T = TypeVar("T")

BODY_TIMEOUT = 1.0
"""Seconds to wait for a rejection's body: the status alone decides."""

_NO_WEBSOCKET_TIMEOUT = aiohttp.ClientWSTimeout(ws_receive=None, ws_close=None)
"""The websocket bounds its close by itself: aiohttp's bound begins anew with each message."""
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}
_PUBLIC_HEADERS = frozenset(
    {"host", "upgrade", "connection", "accept", "accept-encoding", "user-agent"}
    | {"sec-websocket-version", "sec-websocket-key", "sec-websocket-extensions"}
)
_DEFLATE = "permessage-deflate"

Prepare = Callable[[], Awaitable[None]]
"""Waits for what the request needs: the room, the token, the headers."""
ReadHeaders = Callable[[], Mapping[str, str]]
"""Gives headers as of now."""
Turn = Callable[[], Awaitable[None]]
"""Returns when the request may be sent."""


class Dial:
    """One attempt to open a websocket.

    Args:
        session: the caller's, which makes the request.
        options: what to dial, checked.
        record: kept up to date.
        url: where to.
        turn: awaited before the request is sent, or None where nobody else may send it.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        options: DialOptions,
        record: RecordBuilder,
        url: URL,
        turn: Turn | None = None,
    ) -> None:
        self.refusal: HandshakeRejected | None = None
        """The gateway's refusal, from when its status is known, its text perhaps to come."""
        self.pre_dial: PreDial | None = None
        """The connection of the request, once one is dialled."""
        self._session = session
        self._options = options
        self._record = record
        self._url = url
        self._turn = turn
        # Held here and not in locals: its repr, which a traceback may show, has the URL.
        self._response: aiohttp.ClientResponse | None = None
        self._link: Link | None = None
        self._secrets: Secrets | None = None
        self._time = asyncio.get_running_loop().time

    async def open(
        self,
        *,
        headers: Mapping[str, str],
        read_headers: ReadHeaders,
        prepare: Prepare | None,
    ) -> OpenWebSocket:
        """Open the websocket.

        Args:
            headers: what is known to be sent, for mocks that see no more than this.
            read_headers: gives what is to be sent; asked right before it is.
            prepare: awaited while the connection is dialled, or None where all is prepared.

        Raises:
            AgentConnError: it did not open; nothing of the attempt is left.
        """
        opened: OpenWebSocket | None = None
        try:
            opened = await self._connect(headers, read_headers, prepare)
            return opened
        except AgentConnError as error:
            failure: AgentConnError = error
        except Exception as error:
            failure = self._translated(error)
        finally:
            if opened is None:
                self._abort()
            if self.pre_dial is not None and not self.pre_dial.handed_over:
                await self.pre_dial.discard()
        # Raised here and not above: its context would be aiohttp's exception.
        raise failure

    async def _connect(
        self,
        headers: Mapping[str, str],
        read_headers: ReadHeaders,
        prepare: Prepare | None,
    ) -> OpenWebSocket:
        # No method: mocks deep-copy what a request is given, and with a method all it belongs to.
        def guard(
            request: aiohttp.ClientRequest, handler: Handler
        ) -> Awaitable[aiohttp.ClientResponse]:
            return self._guard(request, handler, read_headers, prepare)

        check_seams()
        options = self._options
        trusts_env = self._session.trust_env
        if trusts_env or self._session.auth is not None:
            # aiohttp takes no Authorization header beside its own auth= or a .netrc.
            headers = {name: headers[name] for name in headers if name != "Authorization"}
        ws = await view_of(self._session, guard).ws_connect(
            _asked_url(self._url) if trusts_env else self._url,
            headers=headers,
            protocols=options.protocols,
            timeout=_NO_WEBSOCKET_TIMEOUT,
            compress=options.compress,
            max_msg_size=options.max_msg_size,
            ssl=options.ssl,
            server_hostname=options.server_hostname,
            proxy=options.proxy,
            proxy_headers=options.proxy_headers,
        )
        await check_opened(ws, options.close_timeout, guarded=self._link is not None)
        if options.usage is not None:
            assert isinstance(ws, InferenceWebSocket)
            ws.counter = MeteredMessages(options.usage, self._record.identity or AgentIdentity())
        assert self._response is not None
        assert self._link is not None
        assert self._secrets is not None
        return OpenWebSocket(
            ws,
            self._response,
            self._link,
            self._secrets,
            heartbeat=options.heartbeat,
            close_timeout=options.close_timeout,
        )

    async def _guard(
        self,
        request: aiohttp.ClientRequest,
        handler: Handler,
        read_headers: ReadHeaders,
        prepare: Prepare | None,
    ) -> aiohttp.ClientResponse:
        self._check_route(request)
        await self._make_ready(request, prepare)
        if self._turn is not None:
            await self._turn()
            if self.pre_dial is not None:
                # The peer may have hung up meanwhile.
                await self._attempt(self.pre_dial.connect(), dial_failed)
        headers = read_headers()
        sent, options, record = request.headers, self._options, self._record
        for name in options.reserved_names:
            # Those of the session never stand in for an id.
            if name not in headers:
                sent.popall(name, None)
        sent.update(headers)
        if callable(options.headers):
            self._check_route(request)
        # What it asks for is held as long as the websocket, so not the request itself.
        proxy = () if request.proxy is None else tuple(_proxy_secrets(request))
        secrets = self._secrets = Secrets(
            partial(_sent_secrets, options, self._session.headers, sent, request.url, proxy)
        )
        if self.pre_dial is not None:
            record.connected_at = self._time()
            self._link = self.pre_dial.link
            self.pre_dial.hand_over()
        response = self._response = await self._attempt(handler(request), handshake_failed)
        record.answered_at = self._time()
        record.read_response_headers = partial(shown_headers, response.headers, secrets)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise await self._rejection(response, secrets)
        refusal = self._refusal(response)
        if refusal is not None:
            raise refusal
        self._note_link(response)
        return response

    async def _make_ready(self, request: aiohttp.ClientRequest, prepare: Prepare | None) -> None:
        """Have a connection, and all that the request needs."""
        connector = request.session.connector
        if connector is not None and connector.force_close:
            # It closes what is handed back to it, so that the request has to dial for itself.
            if prepare is not None:
                await prepare()
            self._record.dials += 1
            return
        pre_dial = self.pre_dial = PreDial(request, self._record, self._options.network_timeout)
        if prepare is not None:
            pre_dial.start()
            await prepare()
            await pre_dial.finish()
            self._record.pre_dialed = pre_dial.is_ready()
        await self._attempt(pre_dial.connect(), dial_failed)

    async def _attempt(
        self, step: Awaitable[T], translate: Callable[[Exception, URL], ConnectError]
    ) -> T:
        """The result of ``step``. What it raises leaves as an error of ours.

        That keeps aiohttp from dialling again.
        """
        try:
            return await step
        except AgentConnError:
            raise
        except Exception as error:
            failure = self._final() or translate(error, self._url.origin())
        raise failure

    def _check_route(self, request: aiohttp.ClientRequest) -> None:
        """Refuse what aiohttp would send a token through, whoever set the proxy or the header."""
        if request.proxy is not None:
            check_proxy(request.proxy)
        if self._options.carries_token or "Authorization" in request.headers:
            self._options.check_clear(request.url, request.proxy)

    def _note_link(self, response: aiohttp.ClientResponse) -> None:
        """Note what the answer came on: a connector with another idle one may have taken that."""
        connection = response.connection
        transport = None if connection is None else connection.transport
        if transport is None or (self._link is not None and self._link.transport is transport):
            return
        self._link = Link(transport)
        if self._options.network_timeout is not None:
            watch_network(transport, self._options.network_timeout)

    async def _rejection(
        self, response: aiohttp.ClientResponse, secrets: Secrets
    ) -> HandshakeRejected:
        status, headers = response.status, response.headers
        self.refusal = rejected(status, headers, b"", secrets)
        body = bytearray()
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(BODY_TIMEOUT):
                # Twice what is kept, so that a secret cut in two at the end is still found.
                while len(body) < 2 * MAX_BODY and not response.content.at_eof():
                    body += await response.content.read(2 * MAX_BODY - len(body))
        return rejected(status, headers, bytes(body), secrets)

    def _refusal(self, response: aiohttp.ClientResponse) -> ConnectError | None:
        """Why ``response`` is not the answer that was asked for, or None."""
        status = response.status
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            what = "a redirect, which is refused" if 300 <= status < 400 else "no websocket"
            return HandshakeInvalid(f"the gateway answered {status}, {what}")
        if response.version is None or response.version < aiohttp.HttpVersion11:
            return HandshakeInvalid("the gateway upgraded in HTTP/1.0")
        chosen = response.headers.get("Sec-WebSocket-Protocol")
        if chosen is not None and chosen not in self._options.protocols:
            return HandshakeInvalid("the gateway chose a subprotocol that was not asked for")
        extensions = response.headers.getall("Sec-WebSocket-Extensions", None)
        if extensions is not None and not self._asked_for(extensions):
            return HandshakeInvalid("the gateway chose an extension that was not asked for")
        return None

    def _translated(self, error: Exception) -> AgentConnError:
        """The error for what aiohttp raised outside of the guard."""
        if final := self._final():
            return final
        if isinstance(error, aiohttp.WSServerHandshakeError) and self._response is None:
            # Only from a session whose requests are mocked: the guard was never asked.
            return rejected(error.status, error.headers or {}, b"", Secrets())
        if self._response is not None:
            return HandshakeInvalid("the peer's answer is not a websocket handshake")
        return dial_failed(error, self._url.origin())

    def _asked_for(self, extensions: Iterable[str]) -> bool:
        each = [one.partition(";")[0].strip() for one in ",".join(extensions).split(",")]
        return self._options.compress > 0 and each == [_DEFLATE]

    def told_at_expiry(self, seconds: float) -> ConnectError | None:
        """What is known of why the attempt has not ended after ``seconds``, or None."""
        if self.refusal is not None:
            return self.refusal
        connector = self._session.connector
        if connector is None or self.pre_dial is None or not self.pre_dial.events.queued:
            return None
        limits = {"limit": connector.limit, "limit_per_host": connector.limit_per_host}
        shown = ", ".join(f"{name}={value}" for name, value in limits.items() if value)
        return ConnectTimeout(
            f"open_timeout of {seconds:g} s ran out while all connections of the session's "
            f"connector were taken ({shown}): raise its limit"
        )

    def _final(self) -> ConnectError | None:
        if self._session.closed:
            return DialFailed("the session is closed", retryable=False)
        return None

    def _abort(self) -> None:
        if self._link is not None:
            self._link.shut_down()
        if self._response is not None:
            self._response.close()


def _sent_secrets(
    options: DialOptions,
    defaults: Iterable[str],
    headers: Mapping[str, str],
    url: URL,
    proxy: Iterable[str],
) -> Iterator[str]:
    """What is sent and must not get into a log.

    ``defaults`` are the names of the session's own headers, ``proxy`` what is sent to the proxy.
    """
    given = () if callable(options.headers) else options.headers
    asked = {name.lower() for name in (*defaults, *given)}
    ids = {name.lower() for name in options.header_names.all()}
    for name, value in headers.items():
        lower = name.lower()
        if lower in ids or (lower in _PUBLIC_HEADERS and lower not in asked):
            continue
        if lower == "cookie":
            yield from (pair.partition("=")[2] for pair in value.split(";"))
            with suppress(CookieError):
                yield from (cookie.value for cookie in SimpleCookie(value).values())
        else:
            # Without the scheme, which every answer to a refused token may name.
            yield value.partition(" ")[2] if lower == "authorization" else value
    yield url.raw_query_string
    if callable(options.url):
        yield url.raw_path
    yield from proxy


def _proxy_secrets(request: aiohttp.ClientRequest) -> Iterator[str]:
    proxy, auth = request.proxy, request.proxy_auth
    if proxy is not None:
        yield from filter(None, (proxy.user, proxy.password))
    if auth is not None:
        yield from (auth.login, auth.password)
    yield from (request.proxy_headers or {}).values()


def _asked_url(url: URL) -> URL:
    """``url`` as aiohttp is asked for it where the session trusts the environment.

    aiohttp looks for the environment's proxy by the scheme. Where that has none for wss, the one
    for https serves.
    """
    if url.scheme not in _HTTP_SCHEMES or url.scheme in getproxies():
        return url
    return url.with_scheme(_HTTP_SCHEMES[url.scheme])
