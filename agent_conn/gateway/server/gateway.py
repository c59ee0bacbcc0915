"""The gateway: a real inference gateway on this machine, which can be told to misbehave."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from agent_conn._identity import DEFAULT_HEADER_NAMES, HeaderNames
from agent_conn._options import check_seconds
from agent_conn.errors import ConfigurationError, StateError
from agent_conn.gateway.faults.kinds import Fault, StallAtAccept
from agent_conn.gateway.faults.plan import FaultPlan, Injection
from agent_conn.gateway.inspector.pages import Inspector, InspectorPages
from agent_conn.gateway.server.acceptor import Acceptor
from agent_conn.gateway.server.admission import Admission
from agent_conn.gateway.server.certificates import make_contexts
from agent_conn.gateway.server.handler import RequestHandler
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.hosts import HostNames
from agent_conn.gateway.server.http_log import http_logger
from agent_conn.gateway.server.listener import Listener, connectable
from agent_conn.gateway.server.redaction import Redaction
from agent_conn.gateway.server.sockets import Changes, SocketTable
from agent_conn.gateway.server.tokens import BearerCheck
from agent_conn.gateway.sessions.chat import ChatService, ScriptedChat
from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.decisions import ScriptedDecisions
from agent_conn.gateway.sessions.services import Services
from agent_conn.gateway.speech.engine import SpeechEngine
from agent_conn.gateway.speech.scripted import ScriptedEngine

GOODBYE_SECONDS = 0.2
HANDLER_SECONDS = 0.2
CLOSE_SECONDS = 0.3
KEPT_ALIVE_SECONDS = 3600.0
"""For how long an idle HTTP connection is kept where `request_timeout` is None."""
DEFAULT_MAX_MSG_SIZE = 4 * 1024 * 1024

log: logging.Logger = logging.getLogger("agent_conn.gateway")


class Gateway:
    """An inference gateway that listens on this machine; single use.

    It serves `GET /v1/stt` and `/v1/tts` in LiveKit's inference protocol through `engine`,
    `POST /v1/chat/completions` in OpenAI's with `chat_replies` in turn, or without any by
    repeating the user, and `/v1/echo`, which sends every message back. `/v1/eot` predicts every
    end of turn with the probability `end_of_turn`, `/v1/bargein` every interruption with
    `interruption`; `/v1/models` and `/v1/decisions` have scripted answers. Services of LiveKit's
    gateway that this one does not have answer 501. It opens to `token`, or
    to inference tokens of `api_key` and `api_secret`; with neither to anyone. `heartbeat` is
    the interval in seconds of its own pings, None for none. `max_msg_size` is in bytes, of a
    websocket's message and of a chat request. `handshakes` holds the last `keep_handshakes`
    requests, with None all. With `inspector` it serves a page that shows its connections. The
    engine stays its owner's to close.

    Raises:
        ConfigurationError: an argument is wrong.
        ImportError: `api_key` needs PyJWT, and it is not installed.
    """

    def __init__(
        self,
        engine: SpeechEngine | None = None,
        *,
        chat_replies: Sequence[str] = (),
        end_of_turn: float = 0.9,
        interruption: float = 0.9,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: bool = False,
        token: str | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
        check_host: bool = False,
        header_names: HeaderNames = DEFAULT_HEADER_NAMES,
        shown_headers: Sequence[str] = (),
        heartbeat: float | None = None,
        request_timeout: float | None = 15.0,
        max_msg_size: int = DEFAULT_MAX_MSG_SIZE,
        keep_handshakes: int | None = None,
        inspector: Inspector | None = None,
    ) -> None:
        if heartbeat is not None and not heartbeat > 0:
            raise ConfigurationError("heartbeat must be positive, or None")
        if request_timeout is not None:
            check_seconds("request_timeout", request_timeout)
        if keep_handshakes is not None and keep_handshakes < 0:
            raise ConfigurationError("keep_handshakes must not be negative")
        if not 0 <= port <= 65_535:
            raise ConfigurationError("port must be 0 to 65535")
        self.host = host
        self.client_ssl: ssl.SSLContext | None = None
        """A client's context that trusts this gateway alone; None without TLS, or before start."""
        self._server_ssl: ssl.SSLContext | None = None
        self._tls = tls
        self._asked_port = port
        self._max_msg_size = max_msg_size
        self._request_timeout = request_timeout
        self._changes = Changes()
        self._plan = FaultPlan()
        self._stalls: list[Injection] = []
        self._pages = None if inspector is None else InspectorPages(inspector, host, self.inject)
        journal = None if self._pages is None else self._pages.journal
        self._sockets = SocketTable(self._changes, request_timeout, journal)
        self._services = Services(
            engine=engine if engine is not None else ScriptedEngine(),
            chat=ChatService(ScriptedChat(chat_replies)),
            decisions=ScriptedDecisions(),
            end_of_turn=end_of_turn,
            interruption=interruption,
        )
        self._handler = RequestHandler(
            services=self._services,
            admission=Admission(
                BearerCheck(token, api_key, api_secret), HostNames(host) if check_host else None
            ),
            header_names=header_names,
            redaction=Redaction(header_names, shown_headers),
            plan=self._plan,
            sockets=self._sockets,
            changes=self._changes,
            heartbeat=heartbeat,
            max_msg_size=max_msg_size,
            keep_handshakes=keep_handshakes,
            journal=journal,
        )
        self._runner: web.AppRunner | None = None
        self._acceptor: Acceptor | None = None
        self._listener: Listener | None = None
        self._port: int | None = None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            StateError: it was started before.
            ImportError: TLS was asked for and trustme is not installed.
            OSError: the address cannot be bound.
        """
        if self._runner is not None or self._port is not None:
            raise StateError("a gateway is started once")
        app = web.Application(client_max_size=self._max_msg_size)
        if self._pages is not None:
            self._pages.add_to(app.router, self._sockets)
        app.on_response_prepare.append(self._handler.name_request)
        # A path may hold a line break, which a dot does not match.
        app.router.add_route("*", r"/{path:[\s\S]*}", self._handler.handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_logger,
            shutdown_timeout=HANDLER_SECONDS,
            keepalive_timeout=self._request_timeout or KEPT_ALIVE_SECONDS,
        )
        try:
            if self._tls:
                # Keys and certificates go through files.
                self._server_ssl, self.client_ssl = await asyncio.to_thread(
                    make_contexts, connectable(self.host)
                )
            if self._pages is not None:
                await self._pages.load()
            await self._runner.setup()
            self._acceptor = Acceptor(
                self._sockets,
                self._plan,
                _protocol_factory(self._runner),
                self._server_ssl,
                self._request_timeout,
            )
            self._listener = await Listener.open(self.host, self._asked_port, self._acceptor.accept)
            self._port = self._listener.port
        except BaseException:
            await self.aclose()
            raise
        log.info("gateway.started", extra={"host": self.host, "port": self._port})

    async def aclose(self) -> None:
        """Close every connection and stop, within about a second whatever the peers do.

        Connections that behave get a Close frame with 1001. Idempotent.
        """
        if self._listener is not None:
            self._listener.close()
        self._plan.clear()
        if self._pages is not None:
            self._pages.close()
        await self._say_goodbye()
        if self._acceptor is not None:
            await self._acceptor.aclose()
        await self._handler.aclose(HANDLER_SECONDS)
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            log.info("gateway.closed", extra={"accepted": self.accepted})
        await self._until_sockets_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def port(self) -> int:
        """The port that is listened on.

        Raises:
            StateError: the gateway was not started.
        """
        if self._port is None:
            raise StateError("the gateway was not started")
        return self._port

    @property
    def base_url(self) -> str:
        """What LiveKit's clients take as `base_url`: ``http(s)://host:port/v1``."""
        return f"{'https' if self._tls else 'http'}://{self._authority()}/v1"

    @property
    def inspector_url(self) -> str:
        """The address of the inspector's page.

        Raises:
            StateError: the gateway was made without an inspector, or not started.
        """
        if self._pages is None:
            raise StateError("the gateway was made without an inspector")
        return f"{'https' if self._tls else 'http'}://{self._authority()}/"

    def url(self, path: str = "/v1/stt") -> str:
        """Return the websocket URL of `path`, which may have a query."""
        return f"{'wss' if self._tls else 'ws'}://{self._authority()}{path}"

    @property
    def engine(self) -> SpeechEngine:
        """Who hears and speaks; another one serves the sessions that begin after it was set."""
        return self._services.engine

    @engine.setter
    def engine(self, engine: SpeechEngine) -> None:
        self._services.engine = engine

    @property
    def handshakes(self) -> list[Handshake]:
        """Every request so far, or as many as are kept, in the order they came."""
        return list(self._handler.handshakes)

    @property
    def connections(self) -> list[Connection]:
        """The open websockets, in the order they were opened."""
        return [connection for connection in self._handler.connections if not connection.closed]

    @property
    def open_sockets(self) -> int:
        """How many TCP connections are accepted and not closed yet, whatever their phase."""
        return len(self._sockets)

    @property
    def accepted(self) -> int:
        """How many TCP connections were accepted so far."""
        return self._sockets.accepted

    def inject(self, fault: Fault, times: int | None = 1) -> Injection:
        """Have the next `times` connections meet `fault`; None is until it is withdrawn.

        Faults queue up and strike in the order of injection; see `FaultPlan`.

        Raises:
            ConfigurationError: `fault` is no fault, or `times` below 1.
            StateError: `StallAtAccept`, and the gateway does not listen.
        """
        if not isinstance(fault, Fault):
            raise ConfigurationError("fault must be one of agent_conn.gateway.FAULTS")
        if not isinstance(fault, StallAtAccept):
            return self._plan.add(fault, times)
        if self._listener is None or self._runner is None:
            raise StateError("StallAtAccept needs a gateway that listens")
        injection = Injection(fault, None, self._withdraw_stall)
        self._stalls.append(injection)
        self._listener.stall()
        return injection

    def withdraw_faults(self) -> None:
        """Withdraw every injection; connections already struck stay so."""
        self._plan.clear()
        for injection in tuple(self._stalls):
            injection.withdraw()

    async def wait_until(self, predicate: Callable[[], bool], timeout: float = 5.0) -> None:
        """Return once `predicate` is true; it is asked again at every change in the gateway.

        Accepts, requests, openings, messages received and closes are changes.

        Raises:
            TimeoutError: it is still false after `timeout` seconds.
        """
        await self._changes.wait_for(
            predicate, timeout, lambda: f"still false; open sockets: {self._sockets.describe()}"
        )

    async def wait_idle(self, timeout: float = 5.0) -> None:
        """Return once no socket is open.

        Raises:
            TimeoutError: some still are after `timeout` seconds; the text names them.
        """
        await self._changes.wait_for(
            lambda: not len(self._sockets),
            timeout,
            lambda: f"open sockets: {self._sockets.describe()}",
        )

    def _authority(self) -> str:
        host = connectable(self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _withdraw_stall(self, injection: Injection) -> None:
        if injection in self._stalls:
            self._stalls.remove(injection)
            injection.remaining = 0
            if not self._stalls and self._listener is not None and self._runner is not None:
                self._listener.unstall()

    async def _say_goodbye(self) -> None:
        goodbyes = [
            asyncio.create_task(connection.going_away(), name="gateway-goodbye")
            for connection in self.connections
        ]
        if not goodbyes:
            return
        _, pending = await asyncio.wait(goodbyes, timeout=GOODBYE_SECONDS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*goodbyes, return_exceptions=True)

    async def _until_sockets_closed(self) -> None:
        try:
            await self.wait_idle(CLOSE_SECONDS)
        except TimeoutError:
            log.warning("gateway.sockets_left", extra={"sockets": self._sockets.describe()})


def _protocol_factory(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    if runner.server is None:
        raise StateError("the HTTP server did not start")
    return runner.server
