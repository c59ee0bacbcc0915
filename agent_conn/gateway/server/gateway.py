"""The gateway: a real inference gateway on this machine, which misbehaves on demand."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from agent_conn._identity import DEFAULT_HEADER_NAMES, HeaderNames
from agent_conn._usage import Usage, UsageMeter
from agent_conn.errors import StateError
from agent_conn.gateway.faults.kinds import Fault, StallAtAccept
from agent_conn.gateway.faults.plan import FaultPlan, Injection, check_fault
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
from agent_conn.gateway.server.settings import ServerSettings
from agent_conn.gateway.server.sockets import Changes
from agent_conn.gateway.server.tokens import BearerCheck
from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.services import make_services
from agent_conn.gateway.speech.engine import SpeechEngine

GOODBYE_SECONDS = 0.2
HANDLER_SECONDS = 0.2
CLOSE_SECONDS = 0.3
KEPT_ALIVE_SECONDS = 3600.0
"""For how long an idle HTTP connection is kept where `request_timeout` is None."""
DEFAULT_MAX_MSG_SIZE = 4 * 1024 * 1024

log: logging.Logger = logging.getLogger("agent_conn.gateway")


class Gateway:
    """An inference gateway that listens on this machine; single use.

    It serves `/v1/stt` and `/v1/tts` in LiveKit's inference protocol, `/v1/eot` and
    `/v1/bargein` for end of turn and interruptions, `/v1/echo`, which sends every message back,
    and the plain requests `/v1/chat/completions`, `/v1/decisions` and `/v1/models`. LiveKit's
    other services are answered 501.

    Args:
        engine: The speech engine, which you close yourself. Default: a `ScriptedEngine`.
        chat_replies: The answers that a chat gives in turn. Default: what the user said.
        end_of_turn: What every end-of-turn prediction reports, a probability from 0 to 1.
        interruption: What every interruption prediction reports, a probability from 0 to 1.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        tls: Serve TLS with a certificate made for this gateway. Clients use `client_ssl`.
        token: Accept this bearer token alone.
        api_key: Accept inference tokens of this key and `api_secret`. Without these and
            `token`, accept everyone.
        api_secret: The secret of `api_key`.
        check_host: Refuse requests whose Host header does not name this machine.
        header_names: The headers that carry ids.
        shown_headers: Headers to record with their values. Of a header that is not known to be
            harmless, only the name is recorded.
        heartbeat: Seconds between the gateway's own pings; None sends none.
        request_timeout: Seconds after which the gateway closes a connection that has not sent a
            whole request, or that is idle after its answer; None waits for an hour.
        max_msg_size: The largest websocket message and request body, in bytes.
        keep_handshakes: How many requests `handshakes` keeps; None keeps as many as fit into
            24 MiB, which limits every number.
        inspector: Serve a page that shows the connections and injects faults.

    Raises:
        ConfigurationError: an argument is wrong.
        ImportError: `api_key` needs PyJWT, and it is not installed.
    """

    client_ssl: ssl.SSLContext | None = None
    """A client's context that trusts this gateway alone; None without TLS, or before start."""
    _server_ssl: ssl.SSLContext | None = None
    _runner: web.AppRunner | None = None
    _acceptor: Acceptor | None = None
    _listener: Listener | None = None
    _port: int | None = None

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
        self._settings = ServerSettings(
            host=host,
            port=port,
            tls=tls,
            header_names=header_names,
            heartbeat=heartbeat,
            request_timeout=request_timeout,
            max_msg_size=max_msg_size,
            keep_handshakes=keep_handshakes,
        )
        bearer = BearerCheck(token, api_key, api_secret)
        self._services = make_services(engine, chat_replies, end_of_turn, interruption)
        self._changes, self._plan, self._usage = Changes(), FaultPlan(), UsageMeter()
        self._stalls: list[Injection] = []
        self._pages = None
        if inspector is not None:
            self._pages = InspectorPages(
                inspector, host, self.inject, self._usage, needs_token=bearer.needed
            )
        self._handler = RequestHandler(
            self._settings,
            self._services,
            Admission(bearer, HostNames(host) if check_host else None),
            Redaction(header_names, shown_headers),
            self._plan,
            self._changes,
            self._usage,
            None if self._pages is None else self._pages.journal,
        )
        self._sockets = self._handler.sockets

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            StateError: it was started before.
            ImportError: TLS was asked for and trustme is not installed.
            OSError: the address cannot be bound.
        """
        if self._runner is not None or self._port is not None:
            raise StateError("a Gateway starts once; make a new one")
        self._runner = self._make_runner()
        try:
            if self._settings.tls:
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
                self._settings.request_timeout,
            )
            self._listener = await Listener.open(
                self.host, self._settings.port, self._acceptor.accept
            )
            self._port = self._listener.port
        except BaseException:
            await self.aclose()
            raise
        where = {"host": self.host, "port": self._port}
        log.info("gateway.started: %s, port %s", *where.values(), extra=where)

    async def aclose(self) -> None:
        """Close every connection and stop, within about a second whatever the peers do.

        Connections that behave get a Close frame with 1001. Idempotent.
        """
        if self._listener is not None:
            self._listener.close()
        self._plan.clear()
        if self._pages is not None:
            await self._pages.aclose()
        await self._say_goodbye()
        if self._acceptor is not None:
            await self._acceptor.aclose()
        await self._handler.aclose(HANDLER_SECONDS)
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            accepted = self.accepted
            log.info("gateway.closed: %d sockets accepted", accepted, extra={"accepted": accepted})
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

    def __repr__(self) -> str:
        if self._port is None:
            return "<Gateway, not started>"
        if self._runner is None:
            return f"<Gateway {self.base_url}, closed>"
        return f"<Gateway {self.base_url}, {len(self.connections)} open>"

    @property
    def host(self) -> str:
        """The address that was given to listen on."""
        return self._settings.host

    @property
    def port(self) -> int:
        """The port that is listened on.

        Raises:
            StateError: the gateway was not started.
        """
        if self._port is None:
            raise StateError("the gateway must be started first: use async with, or await start()")
        return self._port

    @property
    def base_url(self) -> str:
        """The `base_url` for LiveKit's clients: ``http(s)://host:port/v1``."""
        return f"{'https' if self._settings.tls else 'http'}://{self._authority()}/v1"

    @property
    def inspector_url(self) -> str:
        """The address of the inspector's page.

        Raises:
            StateError: the gateway was made without an inspector, or not started.
        """
        if self._pages is None:
            raise StateError("the gateway has no inspector: make it with inspector=Inspector()")
        return f"{'https' if self._settings.tls else 'http'}://{self._authority()}/"

    def url(self, path: str = "/v1/stt") -> str:
        """Return the websocket URL of `path`, which may have a query."""
        return f"{'wss' if self._settings.tls else 'ws'}://{self._authority()}{path}"

    @property
    def engine(self) -> SpeechEngine:
        """The speech engine. Setting another affects the sessions that begin after that."""
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

    @property
    def usage(self) -> tuple[Usage, ...]:
        """What each caller has used of `/v1/stt` and `/v1/tts` so far, by the ids it sent."""
        return self._usage.usage

    def inject(self, fault: Fault, times: int | None = 1) -> Injection:
        """Apply `fault` to the next `times` connections; None applies it until it is withdrawn.

        Faults wait in a queue and only its first is ever applied: one that strikes before a request
        to the next TCP connection, any other to the next request.

        Raises:
            ConfigurationError: `fault` is not one of `FAULTS`, or `times` is below 1.
            StateError: `fault` is `StallAtAccept`, and the gateway does not run.
        """
        check_fault(fault)
        if not isinstance(fault, StallAtAccept):
            return self._plan.add(fault, times)
        if self._listener is None or self._runner is None:
            raise StateError("StallAtAccept needs a running gateway: start it first")
        injection = Injection(fault, None, self._withdraw_stall)
        self._stalls.append(injection)
        self._listener.stall()
        return injection

    def withdraw_faults(self) -> None:
        """Withdraw every injection. Connections that have met a fault keep it."""
        self._plan.clear()
        for injection in tuple(self._stalls):
            injection.withdraw()

    async def wait_until(self, predicate: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until `predicate()` is true.

        It is called again after every accept, request, opening, received message and close.

        Raises:
            TimeoutError: it is still false after `timeout` seconds.
        """
        await self._changes.wait_for(
            predicate, timeout, lambda: f"still false; open sockets: {self._sockets.describe()}"
        )

    async def wait_idle(self, timeout: float = 5.0) -> None:
        """Wait until no socket is open.

        Raises:
            TimeoutError: some still are after `timeout` seconds; the text names them.
        """
        await self._changes.wait_for(
            lambda: not len(self._sockets),
            timeout,
            lambda: f"open sockets: {self._sockets.describe()}",
        )

    def _make_runner(self) -> web.AppRunner:
        app = web.Application(client_max_size=self._settings.max_msg_size)
        if self._pages is not None:
            self._pages.add_to(app.router, self._sockets)
        app.on_response_prepare.append(self._handler.name_request)
        # A path may hold a line break, which a dot does not match.
        app.router.add_route("*", r"/{path:[\s\S]*}", self._handler.handle)
        return web.AppRunner(
            app,
            access_log=None,
            logger=http_logger,
            shutdown_timeout=HANDLER_SECONDS,
            keepalive_timeout=self._settings.request_timeout or KEPT_ALIVE_SECONDS,
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
            left = self._sockets.describe()
            log.warning("gateway.sockets_left: %s", left, extra={"sockets": left})


def _protocol_factory(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    if runner.server is None:
        raise StateError("the HTTP server did not start")
    return runner.server
