"""Answers HTTP requests: takes up faults, checks tokens, opens and serves websockets."""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus

from aiohttp import hdrs, web

from agent_conn._usage import UsageMeter
from agent_conn.gateway.faults.answers import answer_badly, unasked_headers
from agent_conn.gateway.faults.kinds import Fault, OpenFault, Stage
from agent_conn.gateway.faults.plan import FaultPlan
from agent_conn.gateway.inspector.entry import Entry
from agent_conn.gateway.inspector.journal import Journal
from agent_conn.gateway.server.admission import Admission, refuse
from agent_conn.gateway.server.handshakes import (
    REQUEST_ID,
    Handshake,
    RecentHandshakes,
    read_identity,
)
from agent_conn.gateway.server.redaction import Redaction, shown_subprotocols
from agent_conn.gateway.server.request_log import log_answer, log_closed, log_opened
from agent_conn.gateway.server.settings import ServerSettings
from agent_conn.gateway.server.sockets import Changes, PeerSocket, SocketTable
from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.services import NOT_IMPLEMENTED, WEBSOCKETS, Services

CLOSE_SECONDS = 1.0
CANCELS = 2
HANDSHAKE: web.RequestKey[Handshake] = web.RequestKey("handshake", Handshake)


class RequestHandler:
    """The one handler of every request, and the records of what it saw."""

    def __init__(
        self,
        settings: ServerSettings,
        services: Services,
        admission: Admission,
        redaction: Redaction,
        plan: FaultPlan,
        changes: Changes,
        usage: UsageMeter,
        journal: Journal | None,
    ) -> None:
        self.handshakes: RecentHandshakes = RecentHandshakes(settings.keep_handshakes)
        self.connections: list[Connection] = []
        self.sockets: SocketTable = SocketTable(changes, settings.request_timeout, journal)
        self._settings = settings
        self._services = services
        self._admission = admission
        self._redaction = redaction
        self._plan = plan
        self._changes = changes
        self._usage = usage
        self._journal = journal
        self._tasks: set[asyncio.Task[object]] = set()
        self._requests = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, and serve the websocket that comes of it."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            return await self._answer(request)
        except ConnectionError:
            # The peer is gone, so that nobody will see this.
            return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            if task is not None:
                self._tasks.discard(task)
            self._changes.notify()

    async def name_request(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put the request's id on the answer, whatever it is."""
        if (handshake := request.get(HANDSHAKE)) is not None:
            response.headers.setdefault(REQUEST_ID, handshake.request_id)

    async def aclose(self, timeout: float) -> None:
        """Give the handlers `timeout` seconds to see that their sockets are gone, then cancel.

        A handler that goes on cleaning up is cancelled again after as long, and then left.
        """
        for _ in range(CANCELS + 1):
            if not self._tasks:
                return
            _, pending = await asyncio.wait(tuple(self._tasks), timeout=timeout)
            for task in pending:
                task.cancel()
        # One more step, in which the last cancel arrives.
        await asyncio.sleep(0)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        peer_socket = self.sockets.of(transport)
        if transport is None or peer_socket is None:
            raise ConnectionResetError("the peer left before its request was served")
        peer_socket.stop_expecting()
        handshake = self._record(request, peer_socket)
        if self._journal is None:
            return await self._respond(request, transport, peer_socket, handshake, None)
        entry = self._journal.request(handshake, peer_socket)
        handshake.number = entry.number
        try:
            return await self._respond(request, transport, peer_socket, handshake, entry)
        finally:
            self._journal.ended(entry)

    async def _respond(
        self,
        request: web.Request,
        transport: asyncio.Transport,
        peer_socket: PeerSocket,
        handshake: Handshake,
        entry: Entry | None,
    ) -> web.StreamResponse:
        response: web.StreamResponse | None = self._admission.refuse_host(request, handshake)
        fault = None
        if response is None:
            fault = self._plan.take(Stage.REQUEST, len(self.connections))
        if entry is not None and fault is not None:
            entry.struck(fault)
        if response is None:
            response = await answer_badly(fault, transport, peer_socket, handshake)
        if peer_socket.closed.is_set():
            raise ConnectionResetError("the peer left")
        if response is None:
            response = self._refusal(request, peer_socket, handshake)
        if response is None:
            response = await self._services.answer(request, peer_socket, handshake, fault)
        if response is not None:
            handshake.answer(response.status, asyncio.get_running_loop().time())
            log_answer(handshake)
            return response
        return await self._open(request, transport, peer_socket, handshake, fault, entry)

    def _record(self, request: web.Request, peer_socket: PeerSocket) -> Handshake:
        asked = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
        self._requests += 1
        handshake = Handshake(
            number=self._requests,
            method=request.method,
            path=request.path,
            model=request.query.get("model"),
            headers=self._redaction.headers(request.headers),
            identity=read_identity(request.headers, self._settings.header_names),
            session_id=request.headers.get(self._settings.header_names.session_id or ""),
            request_id=f"request_{uuid.uuid4().hex}",
            socket_number=peer_socket.number,
            accepted_at=peer_socket.accepted_at,
            secured_at=peer_socket.secured_at,
            request_at=asyncio.get_running_loop().time(),
            subprotocols=shown_subprotocols(asked),
        )
        self.handshakes.append(handshake)
        request[HANDSHAKE] = handshake
        self._changes.notify()
        return handshake

    def _refusal(
        self, request: web.Request, peer_socket: PeerSocket, handshake: Handshake
    ) -> web.Response | None:
        if not self._services.knows(request.path):
            return refuse(handshake, HTTPStatus.NOT_FOUND, "no such service")
        if (refused := self._admission.refuse_token(request, peer_socket, handshake)) is not None:
            return refused
        if request.path in NOT_IMPLEMENTED:
            return refuse(
                handshake, HTTPStatus.NOT_IMPLEMENTED, "this gateway does not have this service"
            )
        if request.path in WEBSOCKETS and not web.WebSocketResponse().can_prepare(request):
            response = refuse(
                handshake,
                HTTPStatus.UPGRADE_REQUIRED,
                "this path serves a websocket: send Upgrade: websocket",
            )
            response.headers[hdrs.UPGRADE] = "websocket"
            return response
        return None

    async def _open(
        self,
        request: web.Request,
        transport: asyncio.Transport,
        peer_socket: PeerSocket,
        handshake: Handshake,
        fault: Fault | None,
        entry: Entry | None,
    ) -> web.StreamResponse:
        ws = web.WebSocketResponse(
            autoclose=False,
            autoping=False,
            heartbeat=self._settings.heartbeat,
            timeout=CLOSE_SECONDS,
            max_msg_size=self._settings.max_msg_size,
        )
        ws.headers.update(unasked_headers(fault))
        await ws.prepare(request)
        opened_at = asyncio.get_running_loop().time()
        handshake.answer(HTTPStatus.SWITCHING_PROTOCOLS, opened_at)
        peer_socket.phase = "websocket"
        connection = Connection(
            ws, transport, peer_socket, handshake, self._changes, self._usage, entry
        )
        self.connections.append(connection)
        if entry is not None and self._journal is not None:
            self._journal.opened(entry, connection)
        self._changes.notify()
        log_opened(handshake)
        try:
            if isinstance(fault, OpenFault):
                await connection.begin_with(fault)
            session_id = handshake.session_id or uuid.uuid4().hex
            await self._services.serve(connection, session_id)
        finally:
            self.connections.remove(connection)
            log_closed(connection, asyncio.get_running_loop().time() - opened_at)
            await connection.aclose()
        return ws
