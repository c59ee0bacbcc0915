"""Open one websocket through the caller's connector, and look at the answer first.

aiohttp's ``ws_connect`` follows redirects with the identity headers, dials a second time in
silence, and drops a rejection's body. Each attempt therefore runs in a session of its own,
which shares the caller's connector and carries one middleware, the guard.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp.connector import Connection

from agent_conn.closing import OpenWebSocket
from agent_conn.errors import AgentConnError, ConnectError, DialFailed, HandshakeInvalid
from agent_conn.failures import MAX_BODY, from_exception, rejected
from agent_conn.pre_dial import PreDial, Progress
from agent_conn.proxies import session_proxy
from agent_conn.settings import DialSettings, Handler

BODY_TIMEOUT = 1.0
"""Seconds to wait for a rejection's body, which is worth less than the verdict."""

_CREDENTIAL_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")
Prepare = Callable[[], Awaitable[None]]
Identify = Callable[[], dict[str, str]]

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


class Attempt:
    """One attempt to open a websocket.

    Args:
        session: the caller's; its connector, cookies, headers, proxy and trace configs serve.
        settings: what to dial, checked.
        progress: kept up to date.
    """

    def __init__(
        self, session: aiohttp.ClientSession, settings: DialSettings, progress: Progress
    ) -> None:
        self._session = session
        self._settings = settings
        self._progress = progress
        self._pre_dial: PreDial | None = None
        # Held here and not in locals: its repr, which a traceback may show, has the URL.
        self._response: aiohttp.ClientResponse | None = None
        self._transport: asyncio.Transport | None = None

    async def open(self, *, prepare: Prepare, identify: Identify, pre_dial: bool) -> OpenWebSocket:
        """Open the websocket.

        Args:
            prepare: awaited first; returns when the request may go out.
            identify: gives the headers; aiohttp gets them with no await in between.
            pre_dial: whether to dial while ``prepare`` runs.

        Raises:
            AgentConnError: it did not open; nothing of the attempt is left.
        """
        connector = self._session.connector
        if connector is None or connector.closed:
            raise DialFailed("the session is closed", retryable=False)
        opened: OpenWebSocket | None = None
        try:
            if pre_dial and not connector.force_close:
                opened = await self._open_pre_dialed(connector, prepare, identify)
            else:
                # A connector with force_close closes what is handed back to it.
                await prepare()
                opened = await self._upgrade(connector, identify)
            return opened
        except AgentConnError as error:
            failure: AgentConnError = error
        except Exception as error:
            failure = self._translated(error)
        finally:
            if opened is None:
                self._abort()
            # The response keeps its session, and so this attempt, for the connection's life:
            # a cycle would leave every closed connection to the garbage collector.
            self._response = self._transport = None
        raise failure.with_traceback(None)

    async def _open_pre_dialed(
        self, connector: aiohttp.BaseConnector, prepare: Prepare, identify: Identify
    ) -> OpenWebSocket:
        settings = self._settings
        self._pre_dial = PreDial(
            connector,
            settings.url.origin(),
            ssl=settings.ssl,
            proxy=settings.proxy or await session_proxy(self._session, settings.url),
            progress=self._progress,
        )
        try:
            await prepare()
            await self._pre_dial.finish()
            return await self._upgrade(connector, identify)
        finally:
            await self._pre_dial.discard()

    async def _upgrade(self, connector: aiohttp.BaseConnector, identify: Identify) -> OpenWebSocket:
        settings = self._settings
        proxy = settings.proxy or await session_proxy(self._session, settings.url)
        own = self._make_session(connector)
        try:
            ws = await own.ws_connect(
                settings.url,
                headers=identify(),
                protocols=settings.protocols,
                timeout=aiohttp.ClientWSTimeout(ws_close=settings.close_timeout),
                heartbeat=settings.heartbeat,
                compress=settings.compress,
                max_msg_size=settings.max_msg_size,
                ssl=settings.ssl,
                proxy=proxy,
            )
        finally:
            own.detach()
        assert self._response is not None
        assert self._transport is not None
        return OpenWebSocket(ws, self._response, self._transport)

    def _make_session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        headers = self._session.headers
        if headers:
            headers = headers.copy()
            for name in self._settings.reserved_names:
                headers.popall(name, None)
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=self._session.cookie_jar,
            headers=headers,
            skip_auto_headers=self._session.skip_auto_headers,
            version=aiohttp.HttpVersion(*self._session.version),
            # For .netrc alone, the proxy being known; aiohttp refuses it beside a token.
            trust_env=self._session.trust_env and not self._settings.authorized,
            trace_configs=self._session.trace_configs,
            timeout=_NO_TIMEOUT,
            request_class=_TrackedRequest,
            middlewares=(self._guard,),
        )

    async def _guard(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        assert isinstance(request, _TrackedRequest)
        request.on_connected = self._note_connected
        if self._pre_dial is not None:
            # The handler takes a parked connection without yielding: nobody else can have it.
            self._progress.pre_dialed = self._pre_dial.park()
        while self._response is None:
            self._progress.dialed = False
            failure: ConnectError | None = None
            turn = asyncio.get_running_loop().call_soon(self._note_dialing)
            try:
                self._response = await handler(request)
            except Exception as error:
                failure = self._translated(error)
            finally:
                turn.cancel()
            if failure is not None:
                self._raise_unless_stale(failure)
        self._progress.answered = asyncio.get_running_loop().time()
        failure = self._refusal(self._response)
        if failure is None:
            return self._response
        if self._response.status >= HTTPStatus.BAD_REQUEST:
            body = await self._read_body(self._response.content)
            secrets = self._sent_secrets(request)
            failure = rejected(self._response.status, self._response.headers, body, secrets)
        raise failure

    def _raise_unless_stale(self, failure: ConnectError) -> None:
        """Raise, unless a parked connection had died unseen: then another takes its place.

        Each turn takes one out of the pool, so the last turn dials. Raising an error of our
        own keeps aiohttp from dialling again.
        """
        progress = self._progress
        if progress.dialed or progress.connected is None:
            raise failure
        self._abort()
        progress.pre_dialed, progress.connected = False, None

    def _note_dialing(self) -> None:
        # Taking a parked connection needs no turn of the event loop, dialling always does.
        if self._progress.connected is None:
            self._progress.dialed = True
            self._progress.dials += 1

    def _note_connected(self, connection: Connection) -> None:
        self._progress.connected = asyncio.get_running_loop().time()
        self._transport = connection.transport

    def _refusal(self, response: aiohttp.ClientResponse) -> ConnectError | None:
        """Why ``response`` is not the answer that was asked for, or None."""
        status = response.status
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            what = "a redirect, which is refused" if 300 <= status < 400 else "no websocket"
            return HandshakeInvalid(f"the gateway answered {status}, {what}")
        if response.version is None or response.version < aiohttp.HttpVersion11:
            return HandshakeInvalid("the gateway upgraded in HTTP/1.0")
        chosen = response.headers.get("Sec-WebSocket-Protocol")
        if chosen is not None and chosen not in self._settings.protocols:
            return HandshakeInvalid("the gateway chose a subprotocol that was not asked for")
        if "Sec-WebSocket-Extensions" in response.headers and not self._settings.compress:
            return HandshakeInvalid("the gateway chose an extension that was not asked for")
        return None

    async def _read_body(self, content: aiohttp.StreamReader) -> bytes:
        body = bytearray()
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(BODY_TIMEOUT):
                # Twice what is kept, so that a secret cut in two at the end is still found.
                while len(body) < 2 * MAX_BODY and not content.at_eof():
                    body += await content.read(2 * MAX_BODY - len(body))
        return bytes(body)

    def _sent_secrets(self, request: aiohttp.ClientRequest) -> Iterator[str]:
        """What was sent that an answer must not repeat to a log."""
        yield request.url.raw_query_string
        yield request.url.query_string
        yield from request.url.query.values()
        for name in {*_CREDENTIAL_HEADERS, *self._settings.headers, *self._session.headers}:
            for value in request.headers.getall(name, ()):
                yield value
                yield from re.split(r"[\s;=,]+", value)

    def _translated(self, error: Exception) -> ConnectError:
        if isinstance(error, aiohttp.WSServerHandshakeError) and self._response is None:
            # Only from a session whose requests are mocked: the guard was never asked.
            return rejected(error.status, error.headers or {}, b"", ())
        return from_exception(
            error,
            self._settings.url.origin(),
            connected=self._progress.connected is not None,
            answered=self._progress.answered is not None,
        )

    def _abort(self) -> None:
        # Not left to aiohttp, whose close waits 30 s for a TLS peer's close_notify.
        if self._transport is not None:
            self._transport.abort()
        if self._response is not None:
            self._response.close()


class _TrackedRequest(aiohttp.ClientRequest):
    """Tells its attempt of the connection, between the dial and the request."""

    on_connected: Callable[[Connection], None]

    def send(self, conn: Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        self.on_connected(conn)
        return super().send(conn)
