"""Put the ids on requests that somebody else's client makes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping

from yarl import URL

from agent_conn._identity import DEFAULT_HEADER_NAMES, AgentIdentity, HeaderNames
from agent_conn._options import check_caller, check_url, check_wait
from agent_conn._record import ConnectionRecord, new_session_id
from agent_conn._room import RoomConnected, WaitOutcome, look, wait_for_room
from agent_conn._sources import IdentitySource, read_identity
from agent_conn.errors import ConfigurationError

MAX_RECORDS = 1024
"""Records that are kept: a call has fewer dials, and memory stays bounded."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""The statuses that HTTP clients follow, with every ``X-…`` header."""

logger: logging.Logger = logging.getLogger("agent_conn")

Origins = str | URL | Iterable[str | URL]


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
        session_id = headers.setdefault(self._names.session_id, new_session_id())
        sent = AgentIdentity(
            headers.get(self._names.job_id),
            headers.get(self._names.room_id),
            headers.get(self._names.agent_id),
        )
        return (known if known == sent else sent), session_id

    def keep(self, record: ConnectionRecord) -> None:
        """Keep the record of a request, and log it."""
        self._records.append(record)
        if logger.isEnabledFor(logging.INFO):
            extra = {"session_id": record.session_id, "attribution": record.attribution.name}
            logger.info("request_attributed", extra=extra)


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
        raise ConfigurationError("origins is no URL and no collection of URLs")
    checked = frozenset(_origin(check_url(url, "origins")) for url in origins)
    if not checked:
        raise ConfigurationError("origins is empty")
    return checked


def _origin(url: URL) -> tuple[bool, str | None, int | None]:
    return url.scheme in {"https", "wss"}, url.host, url.port
