"""``InferenceConnection``: one attributed websocket, from its wait to its close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TypeVar

import aiohttp
from yarl import URL

from agent_conn._dial.close import OpenWebSocket
from agent_conn._dial.endpoints import Endpoints
from agent_conn._dial.handshake import Dial
from agent_conn._dial.headers import RequestHeaders, read_url
from agent_conn._dial.open_hook import OpenHook, run_on_open
from agent_conn._dial.predial import Hold
from agent_conn._dial.race import EndpointsDial
from agent_conn._identity import (
    DEFAULT_HEADER_NAMES,
    AttributionLevel,
    HeaderNames,
    IdentitySource,
    read_identity,
)
from agent_conn._lifecycle import ConnectionState, Ending, Transition, next_state
from agent_conn._options import (
    DialOptions,
    HeadersSource,
    TlsSetting,
    TokenSource,
    UrlSource,
    check_caller,
    check_hooks,
    check_type,
    check_wait,
)
from agent_conn._record import (
    ConnectionObserver,
    ConnectionRecord,
    RecordBuilder,
    StateChanged,
    TraceHeaders,
    log_failed,
    log_lost,
    log_opened,
    tell,
)
from agent_conn._room import RoomConnected, look, wait_for_room
from agent_conn._usage import UsageMeter
from agent_conn.errors import (
    AgentConnError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    OpenHookFailed,
    StateError,
)

E = TypeVar("E", bound=AgentConnError)

_BEING_OPENED = (ConnectionState.WAITING, ConnectionState.DIALING, ConnectionState.OPENING)


class InferenceConnection:
    """One websocket to an inference gateway, attributed as well as can be. Single use.

    Awaiting it, or entering it with ``async with``, waits for the room, opens the websocket
    and gives it: a ``ClientWebSocketResponse`` of aiohttp's.

    Args:
        session: makes the request, so that its subclass, connector, default headers, cookies,
            proxy (from the environment too), size limits and trace configs count, and whatever
            instruments it sees one request. Its timeouts and middlewares are not used.
        url: absolute, ``wss://`` or ``ws://`` (``https`` and ``http`` are taken as such), or a
            callable, sync or async, that gives it once per dial; what it gives is a secret. Or
            ``Endpoints``, which several connections may share.
        identity: an ``AgentIdentity``, or a callable that gives one; read right before the
            request is sent.
        room_connected: what to wait for, such as an ``asyncio.Event``; None: no wait.
        connect_wait: seconds to wait for it; 0 only looks, None waits for ever.
        token: the bearer token, or a callable, sync or async, that gives it once per dial.
        on_open: awaited with the websocket before anyone else has it.
        require: raise ``AttributionUnavailable`` where the ids give less than this.
        headers: further headers, or a callable, sync or async, that gives them once per dial.
            They must not set ids, handshake fields, or ``Authorization`` beside ``token``.
        header_names: the names that carry the ids.
        open_timeout: seconds for token, dial, handshake and ``on_open`` together; the wait
            is not in it.
        close_timeout: seconds for a close, after which the transport is aborted.
        heartbeat: seconds without a message until a ping; a peer that is frozen is found in one
            and a half times that, while somebody receives. None: off.
        network_timeout: seconds until the kernel ends the connection of a dead network or host.
            None: the system's own, which is minutes.
        protocols: websocket subprotocols to ask for.
        compress: whether to ask for permessage-deflate.
        max_msg_size: bytes of the largest message to take.
        ssl: as for aiohttp; True uses the connector's own setting.
        server_hostname: the name to check the certificate against; None: that of ``url``.
        proxy: as for aiohttp; None uses the session's.
        proxy_headers: headers for the proxy alone.
        allow_insecure: allow a token unencrypted to another host or proxy, and ``ssl=False``.
        usage: counts the audio and the characters of LiveKit's inference protocol.
        observer: called with a ``StateChanged`` on every change of state.
        trace_headers: called with the record right before the request; gives headers such as
            ``traceparent``. Where it raises, or names a header that is sent already, none goes.

    Raises:
        ConfigurationError: an argument is wrong, named in the message.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: UrlSource | Endpoints,
        *,
        identity: IdentitySource | None = None,
        room_connected: RoomConnected | None = None,
        connect_wait: float | None = 2.0,
        token: TokenSource | None = None,
        on_open: OpenHook | None = None,
        require: AttributionLevel = AttributionLevel.NONE,
        headers: HeadersSource | None = None,
        header_names: HeaderNames = DEFAULT_HEADER_NAMES,
        open_timeout: float = 10.0,
        close_timeout: float = 1.0,
        heartbeat: float | None = 20.0,
        network_timeout: float | None = 5.0,
        protocols: Iterable[str] = (),
        compress: bool = False,
        max_msg_size: int = 4 * 1024 * 1024,
        ssl: TlsSetting = True,
        server_hostname: str | None = None,
        proxy: str | URL | None = None,
        proxy_headers: Mapping[str, str] | None = None,
        allow_insecure: bool = False,
        usage: UsageMeter | None = None,
        observer: ConnectionObserver | None = None,
        trace_headers: TraceHeaders | None = None,
    ) -> None:
        problem: ConfigurationError | None = None
        try:
            check_type("session", session, aiohttp.ClientSession)
            self._endpoints = url if isinstance(url, Endpoints) else None
            check_caller(identity, room_connected, header_names)
            if not (on_open is None and observer is None and trace_headers is None):
                check_hooks(on_open=on_open, observer=observer, trace_headers=trace_headers)
            check_type("require", require, AttributionLevel)
            self._connect_wait = check_wait(connect_wait)
            self._options = DialOptions(
                url=url.urls[0] if isinstance(url, Endpoints) else url,
                token=token,
                headers=headers,
                header_names=header_names,
                open_timeout=open_timeout,
                close_timeout=close_timeout,
                heartbeat=heartbeat,
                network_timeout=network_timeout,
                protocols=protocols,
                compress=compress,
                max_msg_size=max_msg_size,
                ssl=ssl,
                server_hostname=server_hostname,
                proxy=proxy,
                proxy_headers=proxy_headers,
                allow_insecure=allow_insecure,
                usage=usage,
            )
            if self._endpoints is not None and self._options.carries_token:
                self._options.check_all_clear(self._endpoints.urls)
        except ConfigurationError as error:
            problem = error.with_traceback(None)
        if problem is not None:
            # Some loggers show the locals of a traceback's frames.
            del self, session, url, token, headers, proxy, proxy_headers, protocols
            raise problem
        self._session = session
        self._identity_source = identity
        self._room_connected = room_connected
        self._on_open = on_open
        self._observer = observer

        self._state = ConnectionState.IDLE
        self._record = RecordBuilder()
        self._headers = RequestHeaders(
            self._options, identity, require, trace_headers, self._record
        )
        self._dialed: URL | None = None
        self._settled: asyncio.Event | None = None
        self._opener: asyncio.Task[object] | None = None
        self._budget: asyncio.Timeout | None = None
        self._close_requested = False
        self._dial: Dial | EndpointsDial | None = None
        self._opened: OpenWebSocket | None = None

    def __repr__(self) -> str:
        where = self.url or "with a url that is not read yet"
        return f"<InferenceConnection {where} {self._state} {self._record.session_id}>"

    def __await__(self) -> Generator[object, None, aiohttp.ClientWebSocketResponse]:
        return self.open().__await__()

    async def __aiter__(self) -> AsyncGenerator[aiohttp.WSMessage, None]:
        """The messages as they come. A loss is raised, where ``async for`` of ``ws`` just ends.

        Raises:
            ConnectionLost: the connection was lost; it is ``loss``.
        """
        async for message in self.ws:
            if message.type is aiohttp.WSMsgType.ERROR:
                break
            yield message
        if (loss := self.loss) is not None:
            raise loss

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        return await self.open()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def ws(self) -> aiohttp.ClientWebSocketResponse:
        """The websocket.

        Raises:
            StateError: it is not open yet, or never was.
        """
        if self._opened is None or self._state in _BEING_OPENED:
            raise StateError(
                f"a connection has its websocket from when it is OPEN, and this one is "
                f"{self._state.name}: await it first"
            )
        return self._opened.ws

    @property
    def state(self) -> ConnectionState:
        """Where the connection is in its life."""
        return self._state

    @property
    def url(self) -> URL:
        """Where it leads, without the query.

        Where a callable gives it, this is its origin, and empty before the callable was asked.
        """
        url = self._options.url
        if self._endpoints is not None:
            return self._record.endpoint or self._endpoints.current
        if not callable(url):
            return url.with_query(None).with_fragment(None)
        return URL() if self._dialed is None else self._dialed.origin()

    @property
    def endpoints(self) -> Endpoints | None:
        """The ``Endpoints`` that it was given, or None."""
        return self._endpoints

    @property
    def attribution(self) -> AttributionLevel:
        """The level that the sent ids give; NONE before they are read."""
        return self._record.attribution

    @property
    def upgradable(self) -> bool:
        """Whether a connection dialled now would be attributed otherwise: see ``is_current``."""
        return self._record.identity is not None and not self.is_current()

    def is_current(self) -> bool:
        """Whether its identity source, asked now and here, still holds with what was sent.

        It does while it gives no other value for an id, and no higher level. True before the
        ids are read.
        """
        sent = self._record.identity
        return sent is None or sent.is_current(read_identity(self._identity_source))

    @property
    def loss(self) -> ConnectionLost | None:
        """The end that this side did not ask for, with the peer's own code and reason.

        None while the websocket is open, after a close from this side, and after close code
        1000: check completion yourself.
        """
        loss = None if self._opened is None else self._opened.loss()
        return loss if loss is None else self._at_endpoint(loss)

    @property
    def record(self) -> ConnectionRecord:
        """What is known up to now of how the connection opened and ended."""
        return self._record.build()

    async def open(
        self, *, wait: bool = True, redial: int = 0, hold: Hold | None = None
    ) -> aiohttp.ClientWebSocketResponse:
        """Open it, as awaiting it does. Without ``wait`` the room is only looked at.

        ``redial`` is for the record: how many attempts went before. ``hold`` makes it a spare:
        it is awaited in place of the room, once TCP and TLS are begun, and before the token and
        the identity are read.
        """
        outcome = look(self._room_connected, self._connect_wait if wait else 0)
        if hold is not None:
            outcome, self._record.spare = None, True
        self._advance(Transition.WAIT if outcome is None else Transition.DIAL)
        self._record.redial = redial
        self._record.wait_outcome = outcome
        self._opener = asyncio.current_task()
        self._budget = asyncio.timeout(self._options.open_timeout)
        left: BaseException | None = None
        try:
            async with self._budget:
                return await self._establish(hold)
        except AgentConnError as error:
            failure = self._expiry() if self._budget.expired() else error
        except TimeoutError:
            failure = self._expiry()
        except BaseException as error:
            left = error
        # Raised here and not above, and without the frames that they went through: those of
        # aiohttp hold every header in their locals.
        if left is not None:
            await self._abandon(None)
            left.__context__ = None
            raise left.with_traceback(None)
        failure = self._at_endpoint(failure.with_traceback(None))
        if not self._close_requested:
            log_failed(self._record, self.url, failure)
        await self._abandon(failure)
        if isinstance(failure, OpenHookFailed):
            self._note_loss(failure.loss or self.loss)
        raise failure

    def is_closing(self) -> bool:
        """Whether its transport is closed or about to be, which ``ws.closed`` tells later."""
        return self._opened is None or self._opened.is_closing()

    async def aclose(self) -> None:
        """Close with code 1000, within ``close_timeout``. Safe to call twice, or any time.

        A connection that is still being opened stops, and awaiting it raises ``StateError``.
        """
        if self._state is ConnectionState.OPEN:
            await self._close_open()
        elif self._state is ConnectionState.IDLE:
            self._advance(Transition.CLOSE)
            self._advance(Transition.CLOSED)
        elif self._state is not ConnectionState.CLOSED:
            if self._state in _BEING_OPENED:
                self._interrupt()
            if asyncio.current_task() is not self._opener:
                if self._settled is None:
                    self._settled = asyncio.Event()
                await self._settled.wait()

    async def _establish(self, hold: Hold | None) -> aiohttp.ClientWebSocketResponse:
        record, now = self._record, asyncio.get_running_loop().time
        record.started_at = now()
        url = self._options.url
        if callable(url):
            url = await read_url(url)
        self._dialed = url
        waits = record.wait_outcome is None
        if not waits:
            await self._prepare()
        elif self._budget is not None and not self._close_requested:
            self._budget.reschedule(None)
        if self._endpoints is None:
            self._dial = Dial(self._session, self._options, record, url)
        else:
            assert self._budget is not None
            dial = partial(Dial, self._session, self._options)
            self._dial = EndpointsDial(self._endpoints, dial, record, self._budget.when)
        self._opened = await self._dial.open(
            headers={} if waits else self._headers.read(),
            read_headers=self._headers.read_with_trace,
            prepare=partial(self._wait_and_prepare, hold) if waits else None,
        )
        self._headers.forget()
        self._advance(Transition.UPGRADE)
        if self._on_open is not None:
            await run_on_open(self._on_open, self._opened)
        if self._close_requested:
            # By on_open itself, which the budget's end could not interrupt.
            raise self._expiry()
        record.opened_at = now()
        self._advance(Transition.OPEN)
        self._opener = self._budget = self._dial = None
        log_opened(record, lambda: self.url)
        return self._opened.ws

    async def _wait_and_prepare(self, hold: Hold | None) -> None:
        record = self._record
        if hold is not None:
            await hold(self._dial.pre_dial if isinstance(self._dial, Dial) else None)
            record.started_at = _now()
            record.wait_outcome = look(self._room_connected, 0)
        else:
            assert self._room_connected is not None
            record.wait_outcome = await wait_for_room(self._room_connected, self._connect_wait)
        self._advance(Transition.DIAL)
        assert self._budget is not None
        if not self._close_requested:
            self._budget.reschedule(_now() + self._options.open_timeout)
        await self._prepare()

    async def _prepare(self) -> None:
        now = asyncio.get_running_loop().time
        self._record.waited_at = now()
        await self._headers.prepare()
        self._record.minted_at = now()

    def _expiry(self) -> AgentConnError:
        if self._close_requested:
            return StateError("the connection was closed while it was being opened")
        seconds, phase = self._options.open_timeout, self._record.phase
        told = None if self._dial is None else self._dial.told_at_expiry(seconds)
        text = f"open_timeout of {seconds:g} s ran out in {phase}"
        failure = told or ConnectTimeout(text, phase=phase)
        if isinstance(self._dial, EndpointsDial):
            self._dial.expired(failure)
        return failure

    def _interrupt(self) -> None:
        self._close_requested = True
        # RuntimeError: the budget is spent already, and the opening about to end.
        assert self._budget is not None
        with suppress(RuntimeError):
            self._budget.reschedule(_now())

    async def _abandon(self, failure: AgentConnError | None) -> None:
        """Release everything after an opening that failed (or was cancelled: no ``failure``)."""
        self._advance(Transition.CLOSE, failure)
        self._dial = None
        self._headers.forget()
        try:
            if self._opened is not None:
                if isinstance(failure, OpenHookFailed):
                    await self._opened.close()
                else:
                    await self._opened.abort()
        finally:
            self._advance(Transition.CLOSED, failure)

    async def _close_open(self) -> None:
        opened, record = self._opened, self._record
        assert opened is not None
        self._advance(Transition.CLOSE)
        record.ended = Ending.ABORTED
        try:
            record.ended = await opened.close()
        finally:
            record.close_code, record.close_reason = opened.close_code, opened.close_reason
            self._advance(Transition.CLOSED)
            if (loss := self.loss) is not None:
                log_lost(record, self.url, loss)
                self._note_loss(loss)

    def _note_loss(self, loss: ConnectionLost | None) -> None:
        if self._endpoints is not None and self._record.endpoint is not None and loss is not None:
            self._endpoints.lost(self._record.endpoint, loss)

    def _at_endpoint(self, error: E) -> E:
        """``error``, told which endpoint it is about."""
        endpoint = self._record.endpoint
        if endpoint is not None and isinstance(error, ConnectError | ConnectionLost):
            error.endpoint = str(endpoint)
        return error

    def _advance(self, transition: Transition, error: AgentConnError | None = None) -> None:
        """The one place that sets the state."""
        previous, self._state = self._state, next_state(self._state, transition)
        if self._state is ConnectionState.CLOSED and self._settled is not None:
            self._settled.set()
        if self._observer is not None:
            tell(
                self._observer,
                StateChanged(previous, self._state, self.url, _now(), self.record, error),
            )


def _now() -> float:
    return asyncio.get_running_loop().time()
