"""One request of an attributed job: its wait, its ids, its record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from agent_conn._attribution import names_caller
from agent_conn._dial.predial import PreDial
from agent_conn._dial.translate import shown_headers
from agent_conn._identity import (
    DEFAULT_HEADER_NAMES,
    AgentIdentity,
    IdentitySource,
    read_identity,
)
from agent_conn._record import ConnectionRecord, RecordBuilder
from agent_conn._room import RoomConnected, WaitOutcome, look, wait_for_room
from agent_conn._secrets import Secrets

_PUBLIC = {"user-agent", "accept", "accept-encoding", "content-type", "upgrade", "connection"}
_PUBLIC_PREFIXES = ("sec-websocket-", "x-livekit-inference-")


class SharedWait:
    """The one wait for a job's room, which begins with the first dial.

    ``has_left`` tells whether the job has left the room. Then nobody waits.
    """

    def __init__(self, room: RoomConnected, seconds: float, has_left: Callable[[], bool]) -> None:
        self._room = room
        self._seconds = seconds
        self._has_left = has_left
        self._until: float | None = None

    def look(self) -> WaitOutcome | None:
        """The outcome, or None if it takes a wait to know."""
        return look(self._room, self._left())

    async def wait(self) -> WaitOutcome:
        """Wait for the room, for as many seconds as are left."""
        return await wait_for_room(self._room, self._left())

    def _left(self) -> float:
        if self._until is None:
            self._until = _now() + self._seconds
        return 0.0 if self._has_left() else max(0.0, self._until - _now())


class JobRequest:
    """A request that names its job, from before its dial to its answer.

    ``headers`` are the request's own. aiohttp sends what ``prepare`` leaves in them.
    """

    def __init__(self, headers: CIMultiDict[str]) -> None:
        self._headers = headers
        self._record = RecordBuilder()
        self._record.started_at = _now()
        self._response_headers: dict[str, str] = {}

    async def prepare(
        self, wait: SharedWait, identity: IdentitySource, dial: aiohttp.ClientRequest | None
    ) -> None:
        """Wait for the room, dial ``dial`` meanwhile, then add the ids that are missing."""
        record = self._record
        record.wait_outcome = wait.look()
        pre_dial: PreDial | None = None
        try:
            if record.wait_outcome is None:
                if dial is not None:
                    pre_dial = PreDial(dial, record)
                    pre_dial.start()
                record.wait_outcome = await wait.wait()
            record.waited_at = record.minted_at = _now()
            if pre_dial is not None:
                await pre_dial.finish()
                record.pre_dialed = pre_dial.is_ready()
                # The request follows without an await between, and takes it.
                pre_dial.hand_over()
        finally:
            if pre_dial is not None:
                await pre_dial.discard()
        self._add_ids(read_identity(identity))

    def dialing(self) -> None:
        """The request opens a connection of its own."""
        self._record.dials += 1
        self._record.pre_dialed = False

    def connected(self) -> None:
        """The request has a connection."""
        self._record.connected_at = _now()

    def answered(self, headers: Mapping[str, str]) -> None:
        """The gateway has answered."""
        self._record.answered_at = _now()
        self._response_headers = shown_headers(headers, Secrets(self._secrets))

    def record(self) -> ConnectionRecord:
        """How the request went out, as far as is known now."""
        return replace(self._record.build(), response_headers=self._response_headers)

    def _add_ids(self, known: AgentIdentity) -> None:
        names, headers, record = DEFAULT_HEADER_NAMES, self._headers, self._record
        if names_caller(headers, known):
            for name, value in known.headers().items():
                headers.setdefault(name, value)
        assert names.session_id is not None
        record.session_id = headers.setdefault(names.session_id, record.session_id)
        sent = AgentIdentity(
            headers.get(names.job_id), headers.get(names.room_id), headers.get(names.agent_id)
        )
        record.identity = known if known == sent else sent

    def _secrets(self) -> Iterator[str]:
        ids = {name.lower() for name in DEFAULT_HEADER_NAMES.all()}
        for name, value in self._headers.items():
            lower = name.lower()
            if lower == "authorization":
                yield value.partition(" ")[2]
            elif lower not in _PUBLIC | ids and not lower.startswith(_PUBLIC_PREFIXES):
                yield value


def pre_dial_request(
    session: aiohttp.ClientSession, method: str, url: URL, proxy: str | None
) -> aiohttp.ClientRequest | None:
    """A request by which the connection to ``url`` can be dialled, or None.

    There is none for a method other than GET: aiohttp replaces a parked connection that died
    only for a request that may be repeated. There is none for a connector with ``force_close``
    either, because it closes a parked connection.
    """
    connector = session.connector
    if method != "GET" or connector is None or connector.force_close:
        return None
    return aiohttp.ClientRequest(
        "GET",
        url.origin(),
        loop=asyncio.get_running_loop(),
        session=session,
        ssl=True,
        proxy=URL(proxy) if proxy else None,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
