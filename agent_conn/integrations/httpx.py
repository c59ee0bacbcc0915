"""``AttributionAuth``: the wait and the ids for requests that httpx sends. Needs httpx.

``pip install 'agent-conn[httpx]'``
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from yarl import URL

from agent_conn._attribution import REDIRECTS, Origins, RequestAttribution
from agent_conn._identity import DEFAULT_HEADER_NAMES, HeaderNames, IdentitySource
from agent_conn._record import ConnectionRecord
from agent_conn._room import RoomConnected, WaitOutcome
from agent_conn.errors import HandshakeInvalid

try:
    import httpx
except ImportError as _error:
    raise ImportError(
        "agent_conn.integrations.httpx needs httpx: pip install 'agent-conn[httpx]'"
    ) from _error

if TYPE_CHECKING:
    _Auth = httpx.Auth
else:
    # openai 3 takes clients of httpx and of its successor httpx2, each of which asks for an
    # Auth of its own.
    try:
        import httpx2
    except ImportError:
        _Auth = httpx.Auth
    else:
        _Auth = type("_Auth", (httpx.Auth, httpx2.Auth), {})

_ANSWERED = ".receive_response_headers.complete"


class AttributionAuth(_Auth):
    """An ``httpx.Auth`` that attributes the requests to a gateway, such as LLM calls.

    ::

        auth = AttributionAuth("https://gateway.example", identity=read_identity)
        openai.AsyncClient(http_client=httpx.AsyncClient(auth=auth))

    Before a request to one of ``origins`` it waits for the room, then adds the ids that are
    known and that the request lacks. It overwrites nothing. A redirect is refused, since httpx
    would carry the ids along. Requests to other origins pass untouched. A synchronous client
    does not wait for the room. It serves a client of httpx2 too.

    Args:
        origins: URLs of the gateways; only requests to their origins get ids.
        identity: an ``AgentIdentity``, or a callable read once for each request.
        room_connected: what to wait for, such as an ``asyncio.Event``; None does not wait.
        connect_wait: seconds to wait for it; 0 does not wait, None waits for ever. httpx's own
            timeouts begin after that.
        header_names: the names that carry the ids.

    Raises:
        ConfigurationError: an argument is wrong, named in the message.
        HandshakeInvalid: on a request, where the gateway redirects.
    """

    def __init__(
        self,
        origins: Origins,
        *,
        identity: IdentitySource | None,
        room_connected: RoomConnected | None = None,
        connect_wait: float | None = 2.0,
        header_names: HeaderNames = DEFAULT_HEADER_NAMES,
    ) -> None:
        self._attribution = RequestAttribution(
            origins,
            identity=identity,
            room_connected=room_connected,
            connect_wait=connect_wait,
            header_names=header_names,
        )

    @property
    def records(self) -> tuple[ConnectionRecord, ...]:
        """How each request went out, the oldest first; of the last 1,024.

        ``upgraded`` is the time from the request to the answer's headers, the dial included,
        where there was one. ``dials`` is 0, since httpx does not report them.
        """
        return self._attribution.records

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Wait, add the ids that are known then, and send ``request`` once."""
        if not self._attribution.covers(URL(str(request.url))):
            yield request
            return
        started = time.monotonic()
        outcome = await self._attribution.wait()
        passage = _Passage(self._attribution, request, outcome, time.monotonic() - started)
        request.extensions = {**request.extensions, "trace": passage.on_event}
        try:
            yield request
            passage.answered()
        finally:
            passage.keep()

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the ids that are known now, and send ``request`` once."""
        if not self._attribution.covers(URL(str(request.url))):
            yield request
            return
        passage = _Passage(self._attribution, request, self._attribution.glance(), 0.0)
        request.extensions = {**request.extensions, "trace": passage.on_sync_event}
        try:
            yield request
            passage.answered()
        finally:
            passage.keep()


class _Passage:
    """One request on its way, with its ids.

    httpx follows redirects once an ``Auth`` has returned. Its ``trace`` extension reports the
    answer before that, so that a redirect can be refused.
    """

    def __init__(
        self,
        attribution: RequestAttribution,
        request: httpx.Request,
        outcome: WaitOutcome,
        waited: float,
    ) -> None:
        self._attribution = attribution
        self._outcome = outcome
        self._waited = waited
        self._trace: Callable[[str, Mapping[str, Any]], Any] | None
        self._trace = request.extensions.get("trace")
        self._identity, self._session_id = attribution.add_ids(request.headers)
        self._sent = time.monotonic()
        self._upgraded: float | None = None

    def answered(self) -> None:
        self._upgraded = time.monotonic() - self._sent

    async def on_event(self, event: str, info: Mapping[str, Any]) -> None:
        _refuse_redirect(event, info)
        if self._trace is not None:
            await self._trace(event, info)

    def on_sync_event(self, event: str, info: Mapping[str, Any]) -> None:
        _refuse_redirect(event, info)
        if self._trace is not None:
            self._trace(event, info)

    def keep(self) -> None:
        self._attribution.keep(
            ConnectionRecord(
                session_id=self._session_id,
                attribution=self._identity.level,
                identity=self._identity,
                wait_outcome=self._outcome,
                waited=self._waited,
                upgraded=self._upgraded,
            )
        )


def _refuse_redirect(event: str, info: Mapping[str, Any]) -> None:
    if not event.endswith(_ANSWERED):
        return
    # HTTP/1.1 tells (version, status, ...), HTTP/2 (status, ...).
    status = next((part for part in info["return_value"] if isinstance(part, int)), 0)
    if status in REDIRECTS:
        raise HandshakeInvalid(f"the gateway redirects ({status}), which is refused")
