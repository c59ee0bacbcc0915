"""Open one websocket through the caller's connector, and look at the answer first.

aiohttp's ``ws_connect`` follows redirects with the identity headers, dials a second time in
silence, and drops a rejection's body. Each attempt's request is therefore handed to a guard.
"""

from __future__ import annotations

import asyncio
import re
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from agent_conn._dial.close import OpenWebSocket
from agent_conn._dial.own_session import TrackedRequest, guards, own_session
from agent_conn._dial.predial import PreDial, Progress
from agent_conn._dial.translate import MAX_BODY, from_exception, rejected
from agent_conn._options import DialSettings, Handler
from agent_conn.errors import AgentConnError, ConnectError, DialFailed, HandshakeInvalid

BODY_TIMEOUT = 1.0
"""Seconds to wait for a rejection's body, which is worth less than the verdict."""

_CREDENTIAL_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")
Prepare = Callable[[], Awaitable[None]]
Identify = Callable[[], dict[str, str]]


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
        self._socket: TransportSocket | None = None

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
        own = own_session(self._session)
        opened: OpenWebSocket | None = None
        try:
            origin = self._settings.url.origin()
            if origin not in own.proxies:
                await own.find_proxy(self._session, origin)
            proxy = self._settings.proxy or own.proxies.get(origin)
            # A connector with force_close closes what is handed back to it.
            if pre_dial and not connector.force_close:
                self._pre_dial = self._start_pre_dial(own.connecting, proxy)
            await prepare()
            if self._pre_dial is not None:
                await self._pre_dial.finish()
            opened = await self._upgrade(own.client, proxy, identify)
            return opened
        except AgentConnError as error:
            failure: AgentConnError = error
        except Exception as error:
            failure = self._translated(error)
        finally:
            if opened is None:
                self._abort()
            if self._pre_dial is not None:
                await self._pre_dial.discard()
        # Raised here and not above: its context would be aiohttp's exception.
        raise failure

    def _start_pre_dial(self, session: aiohttp.ClientSession, proxy: URL | None) -> PreDial:
        settings = self._settings
        return PreDial(
            session,
            settings.url.origin(),
            ssl=settings.ssl,
            proxy=proxy,
            progress=self._progress,
        )

    async def _upgrade(
        self, own: aiohttp.ClientSession, proxy: URL | None, identify: Identify
    ) -> OpenWebSocket:
        settings = self._settings
        task = asyncio.current_task()
        guards[task] = self._guard
        try:
            ws = await own.ws_connect(
                settings.url,
                headers=self._with_defaults(identify()),
                protocols=settings.protocols,
                timeout=aiohttp.ClientWSTimeout(ws_close=settings.close_timeout),
                heartbeat=settings.heartbeat,
                compress=settings.compress,
                max_msg_size=settings.max_msg_size,
                ssl=settings.ssl,
                proxy=proxy,
            )
        finally:
            del guards[task]
        assert self._response is not None
        assert self._transport is not None
        return OpenWebSocket(ws, self._response, self._transport)

    def _with_defaults(self, headers: dict[str, str]) -> Mapping[str, str]:
        """``headers`` over those of the session, which never stand in for an id."""
        if not self._session.headers:
            return headers
        merged = self._session.headers.copy()
        for name in self._settings.reserved_names:
            merged.popall(name, None)
        for name, value in headers.items():
            merged[name] = value
        return merged

    async def _guard(self, request: TrackedRequest, handler: Handler) -> aiohttp.ClientResponse:
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
        self._transport = transport = connection.transport
        self._socket = None if transport is None else transport.get_extra_info("socket")

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
        if self._socket is not None:
            # aiohttp has closed a connection twice where the answer was no HTTP, and then
            # asyncio's TLS transport has forgotten what to abort. uvloop's sockets take no
            # shutdown, and say so by a TypeError.
            with suppress(OSError, TypeError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._response is not None:
            self._response.close()
