"""The wait and the ids for requests that somebody else's client makes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import replace
from weakref import WeakSet

import aiohttp
from yarl import URL

from agent_conn._dial.predial import PreDial
from agent_conn._identity import (
    DEFAULT_HEADER_NAMES,
    AgentIdentity,
    HeaderNames,
    IdentitySource,
    read_identity,
)
from agent_conn._log import log
from agent_conn._options import Handler, check_caller, check_url, check_wait, kind
from agent_conn._record import ConnectionRecord, RecordBuilder, new_session_id, seconds_between
from agent_conn._room import RoomConnected, WaitOutcome, look, wait_for_room
from agent_conn.errors import ConfigurationError, HandshakeInvalid

MAX_RECORDS = 1024
"""Records that are kept: a call has fewer dials, and memory stays bounded."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""The statuses that HTTP clients follow, with every ``X-…`` header."""


Origins = str | URL | Iterable[str | URL]
_DIALED_AGAIN = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)
_NOT_DIALED_AGAIN = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class RequestAttribution:
    """Which requests get ids, which ids, and what came of each. For one caller.

    Args:
        origins: URLs of the gateways; only requests to their origins get ids. ``ws`` and
            ``http`` are one scheme, ``wss`` and ``https`` another.
        identity: an ``AgentIdentity``, or a callable read once for each request.
        room_connected: what to wait for before a request; None: no wait.
        connect_wait: seconds to wait for it; 0 only looks, None waits for ever.
        header_names: the names that carry the ids.

    Raises:
        ConfigurationError: an argument is wrong, named in the message.
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
        check_caller(identity, room_connected, header_names)
        self._origins = _check_origins(origins)
        self._identity = identity
        self._room_connected = room_connected
        self._connect_wait = check_wait(connect_wait)
        self._names = header_names
        self._records: deque[ConnectionRecord] = deque(maxlen=MAX_RECORDS)

    @property
    def records(self) -> tuple[ConnectionRecord, ...]:
        """How each request went out, the oldest first; of the last 1,024."""
        return tuple(self._records)

    def covers(self, url: URL) -> bool:
        """Whether a request to ``url`` gets ids."""
        return _origin(url) in self._origins

    def look(self) -> WaitOutcome | None:
        """The wait's outcome where it is known without waiting."""
        return look(self._room_connected, self._connect_wait)

    def glance(self) -> WaitOutcome:
        """The outcome of a wait of 0 seconds."""
        return look(self._room_connected, 0) or WaitOutcome.TIMED_OUT

    async def wait(self) -> WaitOutcome:
        """Wait for the room, within the bound."""
        outcome = self.look()
        if outcome is None:
            assert self._room_connected is not None
            outcome = await wait_for_room(self._room_connected, self._connect_wait)
        return outcome

    def add_ids(self, headers: MutableMapping[str, str]) -> tuple[AgentIdentity, str]:
        """Add the ids that ``headers`` lacks. Returns the ids and the session id that go out.

        What is there stays. Where it names another caller, none is added. ``headers`` ignores
        case.
        """
        known = read_identity(self._identity)
        if names_caller(headers, known, self._names):
            for name, value in known.headers(self._names).items():
                headers.setdefault(name, value)
        session_id = new_session_id()
        if self._names.session_id is not None:
            session_id = headers.setdefault(self._names.session_id, session_id)
        sent = AgentIdentity(
            headers.get(self._names.job_id),
            headers.get(self._names.room_id),
            headers.get(self._names.agent_id),
        )
        return (known if known == sent else sent), session_id

    def keep(self, record: ConnectionRecord) -> None:
        """Keep the record of a request, and log it."""
        self._records.append(record)
        log(
            logging.INFO,
            "request_attributed",
            session_id=record.session_id,
            attribution=record.attribution.name,
        )


class AttributionMiddleware:
    """An aiohttp client middleware that attributes the requests to a gateway.

    Before a request to one of ``origins``, a websocket's handshake included, it waits for the
    room, dialling meanwhile; then it adds the ids that are known and that the request lacks.
    It overwrites nothing. A redirect is refused, since aiohttp would carry the ids along.
    Requests to other origins pass untouched::

        attribution = AttributionMiddleware("https://gateway.example", identity=read_identity)
        session = aiohttp.ClientSession(middlewares=(attribution,))

    Put it last among the session's middlewares, so that what it dialled is the request's.
    The client's own timeouts go on during the wait, and its errors stay aiohttp's.

    Args:
        origins: URLs of the gateways; only requests to their origins get ids. ``ws`` and
            ``http`` are one scheme, ``wss`` and ``https`` another.
        identity: an ``AgentIdentity``, or a callable read once for each request.
        room_connected: what to wait for, such as an ``asyncio.Event``; None: no wait.
        connect_wait: seconds to wait for it; 0 only looks, None waits for ever.
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
        self._failed: WeakSet[asyncio.Task[object]] = WeakSet()

    @property
    def records(self) -> tuple[ConnectionRecord, ...]:
        """How each dial went out, the oldest first; of the last 1,024.

        ``dialed`` is the rest of a pre-dial after the wait. Without a pre-dial, or where it
        was lost, ``upgraded`` has the dial in it. How a connection ended is not known here.
        """
        return self._attribution.records

    def covers(self, url: URL) -> bool:
        """Whether a request to ``url`` gets ids."""
        return self._attribution.covers(url)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        """Wait, add the ids and pass ``request`` on to ``handler``."""
        if not self.covers(request.url):
            return await handler(request)
        task = asyncio.current_task()
        assert task is not None
        again = task in self._failed
        self._failed.discard(task)
        passage = _Passage(self._attribution, request)
        try:
            response = await passage.send(handler, wait=not again)
        except _DIALED_AGAIN as error:
            # aiohttp sends such a request once more, in the same task: the client's budget
            # has no room for a second wait.
            if not again and not isinstance(error, _NOT_DIALED_AGAIN):
                self._failed.add(task)
            raise
        if response.status in REDIRECTS:
            response.close()
            raise HandshakeInvalid(f"the gateway redirects ({response.status}), which is refused")
        return response


class _Passage:
    """One request on its way."""

    def __init__(self, attribution: RequestAttribution, request: aiohttp.ClientRequest) -> None:
        self._attribution = attribution
        self._request = request
        self._record = RecordBuilder()
        self._time = asyncio.get_running_loop().time

    async def send(self, handler: Handler, *, wait: bool) -> aiohttp.ClientResponse:
        attribution, record = self._attribution, self._record
        record.started_at = self._time()
        record.wait_outcome = attribution.look() if wait else attribution.glance()
        pre_dial: PreDial | None = None
        try:
            if record.wait_outcome is None:
                pre_dial = self._start_pre_dial()
                record.wait_outcome = await attribution.wait()
            record.waited_at = record.minted_at = self._time()
            if pre_dial is not None:
                await pre_dial.finish()
                record.connected_at = self._time()
            return await self._send(handler, pre_dial)
        finally:
            if pre_dial is not None:
                await pre_dial.discard()

    async def _send(self, handler: Handler, pre_dial: PreDial | None) -> aiohttp.ClientResponse:
        attribution, request, record = self._attribution, self._request, self._record
        record.pre_dialed = pre_dial is not None and pre_dial.is_ready()
        record.dials += not record.pre_dialed
        record.identity, record.session_id = attribution.add_ids(request.headers)
        sent_at = self._time()
        if pre_dial is not None:
            pre_dial.hand_over()
        try:
            response = await handler(request)
            record.answered_at = self._time()
            return response
        finally:
            upgraded = seconds_between(sent_at, record.answered_at)
            attribution.keep(replace(record.build(), upgraded=upgraded))

    def _start_pre_dial(self) -> PreDial | None:
        request = self._request
        connector = request.session.connector
        # aiohttp replaces a parked connection that died for a request that may be repeated,
        # as a handshake may; a connector with force_close closes what is parked.
        if connector is None or connector.force_close or request.method != "GET":
            return None
        pre_dial = PreDial(request, self._record)
        pre_dial.start()
        return pre_dial


def names_caller(
    headers: Mapping[str, str], identity: AgentIdentity, names: HeaderNames = DEFAULT_HEADER_NAMES
) -> bool:
    """Whether no id in ``headers`` is another caller's.

    Ids of two callers on one request would be wrong for both.
    """
    return all(headers.get(name, own) == own for name, own in identity.headers(names).items())


def _check_origins(origins: object) -> frozenset[tuple[bool, str | None, int | None]]:
    if isinstance(origins, str | URL):
        origins = (origins,)
    if not isinstance(origins, Iterable):
        raise ConfigurationError(
            f"origins must be a URL or a collection of URLs, got {kind(origins)}"
        )
    checked = frozenset(_origin(check_url(url, "origins")) for url in origins)
    if not checked:
        raise ConfigurationError("origins must have a URL, got an empty collection")
    return checked


def _origin(url: URL) -> tuple[bool, str | None, int | None]:
    return url.scheme in {"https", "wss"}, url.host, url.port
