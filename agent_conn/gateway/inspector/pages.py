"""The inspector: the gateway's own web page, which shows every connection and injects faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from aiohttp import hdrs, web

from agent_conn._checks import check_count
from agent_conn._identity import is_printable_ascii
from agent_conn._usage import UsageMeter
from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.forms import describe_faults
from agent_conn.gateway.faults.injector import FaultInjector, Inject
from agent_conn.gateway.inspector.access import SECURITY_HEADERS, Access, Refused
from agent_conn.gateway.inspector.export import as_har
from agent_conn.gateway.inspector.journal import MAX_CONNECTIONS, Journal
from agent_conn.gateway.inspector.stream import Stream
from agent_conn.gateway.server.sockets import SocketTable

MAX_PAGES = 16
BODY_SECONDS = 5.0
GOODBYE_SECONDS = 0.2
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspector:
    """Asks a `Gateway` for its inspector, at `Gateway.inspector_url`.

    On another host than loopback it needs `allow_remote` and a `token`. A browser must show the
    token once: in a form, or as ``?token=`` in the page's address. The inspector keeps the last
    `max_connections` connections in memory.

    Raises:
        ConfigurationError: `max_connections` is below 1, or `token` cannot be one.
    """

    token: str | None = field(default=None, repr=False)
    allow_remote: bool = False
    max_connections: int = MAX_CONNECTIONS
    exports: Mapping[str, str] = field(default_factory=dict)
    """Variables that a client needs beside the URL, as shell words. A page without connections
    shows them, so they must hold no secret."""

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and not (token.strip() and is_printable_ascii(token)):
            raise ConfigurationError("token of the inspector must be printable ASCII and not blank")
        check_count("max_connections", self.max_connections)


class InspectorPages:
    """Serves the inspector of one gateway, which listens on `host`.

    Raises:
        ConfigurationError: `host` is not loopback, and the inspector may not be seen from there.
    """

    def __init__(
        self,
        inspector: Inspector,
        host: str,
        inject: Inject,
        usage: UsageMeter,
        *,
        needs_token: bool,
    ) -> None:
        self.journal: Journal = Journal(inspector.max_connections)
        self._exports = dict(inspector.exports)
        self._needs_token = needs_token
        self._usage = usage
        self._access = Access(host, inspector.token, allow_remote=inspector.allow_remote)
        self._injector = FaultInjector(self.journal, inject)
        self._sockets: SocketTable | None = None
        self._files: dict[str, bytes] = {}
        self._closing = asyncio.Event()
        self._pages: set[asyncio.Future[None]] = set()

    async def load(self) -> None:
        """Read the page's files, once."""
        self._files = await asyncio.to_thread(_read_static)

    def add_to(self, router: web.UrlDispatcher, sockets: SocketTable) -> None:
        """Add the inspector's routes, whose requests come on `sockets`."""
        self._sockets = sockets
        router.add_get("/", self._guard(self._page, public=True))
        router.add_get("/inspector/static/{name}", self._guard(self._static_file, public=True))
        router.add_post("/inspector/session", self._guard(self._begin_session, public=True))
        router.add_get("/inspector/access", self._guard(self._tell_access))
        router.add_get("/inspector/usage", self._guard(self._tell_usage))
        router.add_get("/inspector/faults", self._guard(self._list_faults))
        router.add_get("/inspector/events", self._guard(self._events), allow_head=False)
        router.add_get("/inspector/export", self._guard(self._export), allow_head=False)
        router.add_delete("/inspector/connections", self._guard(self._clear))
        router.add_get("/inspector/connections/{number:[0-9]{1,9}}", self._guard(self._details))
        router.add_post("/inspector/faults", self._guard(self._inject))
        router.add_delete("/inspector/faults/{number:[0-9]{1,9}}", self._guard(self._withdraw))

    async def aclose(self) -> None:
        """Tell every page that the gateway stops, and end its events. Idempotent."""
        self._closing.set()
        self._injector.close()
        if self._pages:
            await asyncio.wait(self._pages, timeout=GOODBYE_SECONDS)

    def _guard(self, serve: Serve, *, public: bool = False) -> Serve:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._disregard(request)
            try:
                self._access.check_host(request)
                # A link to the page may stand on any site.
                if not (public and request.method in (hdrs.METH_GET, hdrs.METH_HEAD)):
                    self._access.check_site(request)
                if not public:
                    self._access.check_session(request)
                response = await serve(request)
            except Refused as refused:
                response = web.json_response({"error": str(refused)}, status=refused.status)
            except ConfigurationError as mistake:
                response = web.json_response({"error": str(mistake)}, status=400)
            if not response.prepared:
                response.headers.update(SECURITY_HEADERS)
            return response

        return guarded

    def _disregard(self, request: web.Request) -> None:
        own = None if self._sockets is None else self._sockets.of(request.transport)
        if own is not None:
            self.journal.disregard(own)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        token = request.query.get("token")
        if token is not None:
            # The token leaves the address, and with it the browser's history.
            away = web.Response(status=303, headers={hdrs.LOCATION: "/"})
            if self._access.admit(request, token, away) or not self._access.needs_token:
                return away
        try:
            self._access.check_session(request)
        except Refused as refused:
            return self._file("login.html", refused.status)
        return self._file("index.html")

    async def _static_file(self, request: web.Request) -> web.StreamResponse:
        return self._file(request.match_info["name"])

    def _file(self, name: str, status: int = 200) -> web.Response:
        body = self._files.get(name)
        if body is None:
            raise Refused(404, "no such file")
        kind = TYPES["." + name.rpartition(".")[2]]
        return web.Response(status=status, body=body, content_type=kind, charset="utf-8")

    async def _begin_session(self, request: web.Request) -> web.StreamResponse:
        token = (await _read_object(request)).get("token")
        response = web.json_response({})
        if not isinstance(token, str) or not self._access.admit(request, token, response):
            raise Refused(401, "the token is wrong")
        return response

    async def _tell_access(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"exports": self._exports, "needsToken": self._needs_token})

    async def _tell_usage(self, _: web.Request) -> web.StreamResponse:
        return web.json_response([asdict(used) for used in self._usage.usage])

    async def _list_faults(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(describe_faults())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if len(self._pages) >= MAX_PAGES:
            raise Refused(503, f"{MAX_PAGES} pages are open already; close one")
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pages.add(left)
        response = web.StreamResponse(headers=SECURITY_HEADERS)
        response.content_type = "text/event-stream"
        try:
            await response.prepare(request)
            await Stream(self.journal, self._injector.pending).run(request, response, self._closing)
        except ConnectionError:
            # The page is gone.
            return response
        finally:
            self._pages.discard(left)
            left.set_result(None)
        return response

    async def _export(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=SECURITY_HEADERS)
        response.content_type = "application/json"
        response.headers[hdrs.CONTENT_DISPOSITION] = 'attachment; filename="connections.har"'
        # The page may go in the middle of it.
        with suppress(ConnectionError):
            await response.prepare(request)
            async for part in as_har(self.journal, request.scheme):
                await response.write(part)
        return response

    async def _clear(self, _: web.Request) -> web.StreamResponse:
        self.journal.clear()
        return web.json_response({})

    async def _details(self, request: web.Request) -> web.StreamResponse:
        entry = self.journal.get(int(request.match_info["number"]))
        if entry is None:
            raise Refused(404, "this connection is not kept, or not any more")
        return web.json_response(entry.details())

    async def _inject(self, request: web.Request) -> web.StreamResponse:
        fault = self._injector.inject(await _read_object(request))
        return web.json_response({"fault": fault})

    async def _withdraw(self, request: web.Request) -> web.StreamResponse:
        self._injector.withdraw(int(request.match_info["number"]))
        return web.json_response({})


async def _read_object(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise Refused(415, "the body must be application/json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.json()
    except TimeoutError:
        raise Refused(408, f"the body must come within {BODY_SECONDS:g} s") from None
    except (ValueError, RecursionError):
        raise Refused(400, "the body must be JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object")
    return body


def _read_static() -> dict[str, bytes]:
    folder = files("agent_conn.gateway.inspector") / "static"
    return {
        item.name: item.read_bytes()
        for item in folder.iterdir()
        if "." + item.name.rpartition(".")[2] in TYPES
    }
