"""``AttributionMiddleware``: the wait and the ids for any aiohttp client's requests."""

from __future__ import annotations

import asyncio
from weakref import WeakSet

import aiohttp
from yarl import URL

from agent_conn._dial.own_session import own_session, request_proxy
from agent_conn._dial.predial import PreDial, Progress
from agent_conn._identity import DEFAULT_HEADER_NAMES, HeaderNames
from agent_conn._options import Handler
from agent_conn._record import ConnectionRecord, seconds_between
from agent_conn._request_attribution import REDIRECTS, Origins, RequestAttribution
from agent_conn._room import RoomConnected
from agent_conn._sources import IdentitySource
from agent_conn.errors import HandshakeInvalid

_DIALED_AGAIN = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)
_NOT_DIALED_AGAIN = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


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
        self._progress = Progress()
        self._time = asyncio.get_running_loop().time
        self._started = self._time()

    async def send(self, handler: Handler, *, wait: bool) -> aiohttp.ClientResponse:
        attribution, request, progress = self._attribution, self._request, self._progress
        outcome = attribution.look() if wait else attribution.glance()
        pre_dial: PreDial | None = None
        try:
            if outcome is None:
                pre_dial = self._pre_dial()
                outcome = await attribution.wait()
            waited = self._time()
            if pre_dial is not None:
                await pre_dial.finish()
            identity, session_id = attribution.add_ids(request.headers)
            # The handler takes a parked connection without yielding: nobody else can have it.
            progress.pre_dialed = pre_dial is not None and pre_dial.park()
            progress.dials += not progress.pre_dialed
            progress.connected = self._time() if pre_dial is not None else None
            sent = self._time()
            try:
                response = await handler(request)
                progress.answered = self._time()
            finally:
                attribution.keep(
                    ConnectionRecord(
                        session_id=session_id,
                        attribution=identity.level,
                        identity=identity,
                        wait_outcome=outcome,
                        pre_dialed=progress.pre_dialed,
                        dials=progress.dials,
                        pre_dial=seconds_between(
                            progress.pre_dial_started, progress.pre_dial_ended
                        ),
                        waited=waited - self._started,
                        dialed=seconds_between(waited, progress.connected),
                        upgraded=seconds_between(sent, progress.answered),
                    )
                )
            return response
        finally:
            if pre_dial is not None:
                await pre_dial.discard()

    def _pre_dial(self) -> PreDial | None:
        request = self._request
        connector = request.session.connector
        # aiohttp replaces a parked connection that died for a request that may be repeated,
        # as a handshake may; a connector with force_close closes what is parked.
        if connector is None or connector.force_close or request.method != "GET":
            return None
        return PreDial(
            own_session(request.session).connecting,
            request.url.origin(),
            ssl=request.ssl,
            proxy=request_proxy(request),
            progress=self._progress,
        )
