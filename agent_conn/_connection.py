"""``InferenceConnection``: one attributed websocket, from its wait to its close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import suppress
from types import TracebackType

import aiohttp
from yarl import URL

from agent_conn._dial.close import OpenWebSocket
from agent_conn._dial.handshake import Attempt
from agent_conn._identity import DEFAULT_HEADER_NAMES, AttributionLevel, HeaderNames
from agent_conn._lifecycle import ConnectionState, Ending, Transition, next_state
from agent_conn._options import TlsSetting, check_sources, check_wait, settings_of
from agent_conn._record import (
    ConnectionObserver,
    ConnectionRecord,
    Notes,
    StateChanged,
    TraceHeaders,
    new_session_id,
    read_trace_headers,
    tell,
)
from agent_conn._room import RoomConnected, WaitOutcome, look, wait_for_room
from agent_conn._sources import IdentitySource, TokenSource, mint, read_identity
from agent_conn.errors import (
    AgentConnError,
    AttributionUnavailable,
    ConfigurationError,
    ConnectionLost,
    ConnectTimeout,
    OpenHookFailed,
    Phase,
    StateError,
)

logger: logging.Logger = logging.getLogger("agent_conn")

OpenHook = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]]

_BEING_OPENED = (ConnectionState.WAITING, ConnectionState.DIALING, ConnectionState.OPENING)


class InferenceConnection:
    """One websocket to an inference gateway, attributed as well as can be. Single use.

    Awaiting it, or entering it with ``async with``, waits for the room, opens the websocket
    and gives aiohttp's own ``ClientWebSocketResponse``.

    Args:
        session: the caller's. Its connector, default headers, cookies, proxy (from the
            environment too) and trace configs are used; its timeouts, ``auth``, ``.netrc``,
            middlewares, ``base_url`` and response classes are not. A pre-dial is not traced,
            the request on it is.
        url: absolute, ``wss://`` or ``ws://`` (``https`` and ``http`` are taken as such).
        identity: an ``AgentIdentity``, or a callable read once, right before the request.
        room_connected: what to wait for, such as an ``asyncio.Event``; None: no wait.
        connect_wait: seconds to wait for it; 0 only looks, None waits for ever.
        token: the bearer token, or a callable, sync or async, called once per dial.
        on_open: awaited with the websocket before anyone else has it.
        require: raise ``AttributionUnavailable`` where the ids give less than this.
        headers: sent too; no id's name, no handshake header, no ``Authorization`` beside
            ``token``.
        header_names: the names that carry the ids.
        open_timeout: seconds for token, dial, handshake and ``on_open`` together; the wait
            is not in it.
        close_timeout: seconds for a close, after which the transport is aborted.
        heartbeat: seconds between pings; a dead peer is found within one and a half. None: off.
        protocols: websocket subprotocols to ask for.
        compress: whether to ask for permessage-deflate.
        max_msg_size: bytes of the largest message to take.
        ssl: as for aiohttp; True uses the connector's own setting.
        proxy: as for aiohttp; None uses the session's.
        allow_insecure: allow a token over ``ws://`` to another host, and ``ssl=False``.
        observer: called with a ``StateChanged`` on every change of state.
        trace_headers: called with the record right before the request; gives headers such as
            ``traceparent``. Where it raises, or names a header that is sent already, none goes.

    Raises:
        ConfigurationError: an argument is wrong, named in the message.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str | URL,
        *,
        identity: IdentitySource | None = None,
        room_connected: RoomConnected | None = None,
        connect_wait: float | None = 2.0,
        token: TokenSource | None = None,
        on_open: OpenHook | None = None,
        require: AttributionLevel = AttributionLevel.NONE,
        headers: Mapping[str, str] | None = None,
        header_names: HeaderNames = DEFAULT_HEADER_NAMES,
        open_timeout: float = 10.0,
        close_timeout: float = 1.0,
        heartbeat: float | None = 10.0,
        protocols: Iterable[str] = (),
        compress: bool = False,
        max_msg_size: int = 4 * 1024 * 1024,
        ssl: TlsSetting = True,
        proxy: str | URL | None = None,
        allow_insecure: bool = False,
        observer: ConnectionObserver | None = None,
        trace_headers: TraceHeaders | None = None,
    ) -> None:
        problem: ConfigurationError | None = None
        try:
            check_sources(
                session,
                identity,
                room_connected,
                token,
                on_open,
                require,
                header_names,
                observer,
                trace_headers,
            )
            self._connect_wait = check_wait(connect_wait)
            self._settings = settings_of(
                url=url,
                headers=headers,
                header_names=header_names,
                has_token=token is not None,
                open_timeout=open_timeout,
                close_timeout=close_timeout,
                heartbeat=heartbeat,
                protocols=protocols,
                compress=compress,
                max_msg_size=max_msg_size,
                ssl=ssl,
                proxy=proxy,
                allow_insecure=allow_insecure,
            )
        except ConfigurationError as error:
            problem = error.with_traceback(None)
        if problem is not None:
            # Some loggers show the locals of a traceback's frames.
            del self, url, token, headers, proxy
            raise problem
        self._session = session
        self._identity_source = identity
        self._room_connected = room_connected
        self._token = token
        self._on_open = on_open
        self._require = require
        self._header_names = header_names
        self._observer = observer
        self._trace_headers = trace_headers

        self._state = ConnectionState.IDLE
        self._notes = Notes(new_session_id())
        self._settled: asyncio.Event | None = None
        self._opener: asyncio.Task[object] | None = None
        self._budget: asyncio.Timeout | None = None
        self._close_requested = False
        self._bearer: str | None = None
        self._opened: OpenWebSocket | None = None

    def __repr__(self) -> str:
        url, session_id = self._settings.url, self._notes.session_id
        return f"<InferenceConnection {url.origin()}{url.path} {self._state} {session_id}>"

    def __await__(self) -> Generator[object, None, aiohttp.ClientWebSocketResponse]:
        return self.open().__await__()

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
            raise StateError(f"a connection that is {self._state.name} has no websocket")
        return self._opened.ws

    @property
    def state(self) -> ConnectionState:
        """Where the connection is in its life."""
        return self._state

    @property
    def attribution(self) -> AttributionLevel:
        """The level that the sent ids give; NONE before they are read."""
        return self._notes.attribution

    @property
    def upgradable(self) -> bool:
        """Whether a connection dialled now would be attributed otherwise: see ``is_current``."""
        return self._notes.identity is not None and not self.is_current()

    def is_current(self) -> bool:
        """Whether its identity source, asked now and here, still holds with what was sent.

        It does while it gives no other value for an id, and no higher level. True before the
        ids are read.
        """
        sent = self._notes.identity
        return sent is None or sent.is_current(read_identity(self._identity_source))

    @property
    def loss(self) -> ConnectionLost | None:
        """The end that nobody here asked for: no Close frame, or a code other than 1000.

        None while the websocket is open, and after a close from this side or with 1000: a
        pump that was not done yet then has to tell that itself.
        aiohttp drops the Close frame's reason, so the error's ``reason`` says what was seen.
        """
        return None if self._opened is None else self._opened.loss(self._notes.ended)

    @property
    def record(self) -> ConnectionRecord:
        """What is known up to now of how the connection opened and ended."""
        return self._notes.record()

    async def open(self, *, wait: bool = True, redial: int = 0) -> aiohttp.ClientWebSocketResponse:
        """Open it, as awaiting it does. Without ``wait`` the room is only looked at.

        ``redial`` is for the record: how many attempts went before.
        """
        outcome = look(self._room_connected, self._connect_wait if wait else 0)
        self._advance(Transition.WAIT if outcome is None else Transition.DIAL)
        self._notes.redial = redial
        self._opener = asyncio.current_task()
        self._budget = asyncio.timeout(None if outcome is None else self._settings.open_timeout)
        try:
            async with self._budget:
                return await self._establish(outcome)
        except AgentConnError as error:
            # Without the frames of aiohttp, whose locals hold every header.
            failure = self._expiry() if self._budget.expired() else error.with_traceback(None)
        except TimeoutError:
            failure = self._expiry()
        except BaseException:
            await self._abandon(None)
            raise
        await self._abandon(failure)
        raise failure

    def is_closing(self) -> bool:
        """Whether its transport is closed or about to be, which ``ws.closed`` tells later."""
        return self._opened is None or self._opened.is_closing()

    async def aclose(self) -> None:
        """Close with code 1000, within ``close_timeout``. Safe to call twice, or any time.

        A connection that is still being opened stops; who awaits it gets ``StateError``.
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

    async def _establish(self, outcome: WaitOutcome | None) -> aiohttp.ClientWebSocketResponse:
        self._notes.started_at = _now()
        self._notes.wait_outcome = outcome
        attempt = Attempt(self._session, self._settings, self._notes.progress)
        self._opened = await attempt.open(
            prepare=self._prepare, identify=self._identify, pre_dial=outcome is None
        )
        self._advance(Transition.UPGRADE)
        if self._on_open is not None:
            await self._run_on_open(self._on_open, self._opened.ws)
        self._notes.opened_at = _now()
        self._advance(Transition.OPEN)
        self._opener = self._budget = None
        if logger.isEnabledFor(logging.INFO):
            extra = {"session_id": self._notes.session_id, "attribution": self.attribution.name}
            logger.info("connection_opened", extra=extra)
        return self._opened.ws

    async def _prepare(self) -> None:
        if self._notes.wait_outcome is None and self._room_connected is not None:
            self._notes.wait_outcome = await wait_for_room(self._room_connected, self._connect_wait)
            self._advance(Transition.DIAL)
            assert self._budget is not None
            if not self._close_requested:
                self._budget.reschedule(_now() + self._settings.open_timeout)
        self._notes.waited_at = _now()
        if isinstance(self._token, str):
            self._bearer = self._token
        elif self._token is not None:
            self._bearer = await mint(self._token)
        self._notes.minted_at = _now()

    def _identify(self) -> dict[str, str]:
        identity = self._notes.identity = read_identity(self._identity_source)
        if identity.level < self._require:
            raise AttributionUnavailable(
                f"attribution is {identity.level.name}, {self._require.name} is required",
                retryable=True,
            )
        headers = {**self._settings.headers, **identity.headers(self._header_names)}
        headers[self._header_names.session_id] = self._notes.session_id
        if self._trace_headers is not None:
            taken = {*headers, *self._settings.reserved_names, "Authorization"}
            headers |= read_trace_headers(self._trace_headers, self.record, taken)
        if self._bearer is not None:
            headers["Authorization"] = f"Bearer {self._bearer}"
            self._bearer = None
        return headers

    async def _run_on_open(self, hook: OpenHook, ws: aiohttp.ClientWebSocketResponse) -> None:
        try:
            await hook(ws)
        except Exception as error:
            lost = ws.closed or isinstance(error, OSError | aiohttp.ClientError)
            raise OpenHookFailed(
                f"on_open raised {type(error).__name__}", retryable=lost
            ) from error

    def _expiry(self) -> AgentConnError:
        if self._close_requested:
            return StateError("the connection was closed while it was being opened")
        phase = self._phase()
        return ConnectTimeout(
            f"open_timeout of {self._settings.open_timeout:g} s ran out in {phase}", phase=phase
        )

    def _phase(self) -> Phase:
        if self._opened is not None:
            return Phase.ON_OPEN
        if self._notes.minted_at is None:
            return Phase.TOKEN
        return Phase.DIAL if self._notes.progress.connected is None else Phase.HANDSHAKE

    def _interrupt(self) -> None:
        self._close_requested = True
        # RuntimeError: the budget is spent already, and the opening about to end.
        assert self._budget is not None
        with suppress(RuntimeError):
            self._budget.reschedule(_now())

    async def _abandon(self, failure: AgentConnError | None) -> None:
        """Release everything after an opening that failed (or was cancelled: no ``failure``)."""
        self._advance(Transition.CLOSE, failure)
        try:
            if self._opened is not None:
                if isinstance(failure, OpenHookFailed):
                    await self._opened.close(self._settings.close_timeout)
                else:
                    await self._opened.abort()
        finally:
            self._advance(Transition.CLOSED, failure)

    async def _close_open(self) -> None:
        assert self._opened is not None
        self._advance(Transition.CLOSE)
        self._notes.ended = Ending.ABORTED
        try:
            self._notes.ended = await self._opened.close(self._settings.close_timeout)
        finally:
            code = self._opened.ws.close_code
            self._notes.close_code = int(code or aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
            self._advance(Transition.CLOSED)

    def _advance(self, transition: Transition, error: AgentConnError | None = None) -> None:
        """The one place that sets the state."""
        previous, self._state = self._state, next_state(self._state, transition)
        if self._state is ConnectionState.CLOSED and self._settled is not None:
            self._settled.set()
        if self._observer is not None:
            url = self._settings.url.with_query(None).with_fragment(None)
            change = StateChanged(previous, self._state, url, _now(), self.record, error)
            tell(self._observer, change)


def _now() -> float:
    return asyncio.get_running_loop().time()
