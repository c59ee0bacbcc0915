"""What the inspector knows of one connection: from its accept, over its request, to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agent_conn._identity import AttributionLevel
from agent_conn.gateway.faults.kinds import Fault
from agent_conn.gateway.faults.words import in_words
from agent_conn.gateway.inspector.message_log import Direction, MessageLog
from agent_conn.gateway.server.handshakes import Handshake, size_of
from agent_conn.gateway.server.sockets import PeerSocket
from agent_conn.gateway.sessions.connection import Connection

ENTRY_BYTES = 3_000
"""About how many bytes of memory an entry takes beside its handshake and its log."""
MAX_SHOWN = 256
"""Characters of a header that a row shows; the details have it whole."""


class Revision:
    """Counts the changes in a journal, so that a page gets what it has not seen."""

    def __init__(self) -> None:
        self.value: int = 0

    def advance(self) -> int:
        """Count one change."""
        self.value += 1
        return self.value


class Entry:
    """One connection, or one request on a connection that serves several.

    Times are seconds of the event loop's clock.
    """

    def __init__(
        self,
        number: int,
        peer_socket: PeerSocket,
        revision: Revision,
        on_growth: Callable[[Entry, int], None],
        *,
        first: bool = True,
    ) -> None:
        self.number = number
        self.line = number
        """The number of the first connection of its line: those that were upgraded into it."""
        self.predecessor: Entry | None = None
        self.superseded_by: int | None = None
        self.handshake: Handshake | None = None
        self.connection: Connection | None = None
        """The websocket while it is open; what has ended keeps no socket alive."""
        self.opened: bool = False
        """Whether a websocket opened."""
        self.close_code: int | None = None
        """The websocket's close code, None while it is open."""
        self.user_agent: str = ""
        """The client as it names itself."""
        self.log: MessageLog = MessageLog()
        self.first_message_at: float | None = None
        self.ended_at: float | None = None
        self.fault: str | None = None if peer_socket.fault is None else in_words(peer_socket.fault)
        """The last fault that it met, in words."""
        self.peer: str = peer_socket.peer
        self.socket_number: int = peer_socket.number
        """Which accepted TCP connection it is on."""
        self._socket: PeerSocket | None = peer_socket
        self._accepted_at = peer_socket.accepted_at
        self._secured_at = peer_socket.secured_at
        self._counts = (0, 0, 0, 0)
        self._asked_upgrade = False
        self._first = first
        self._on_growth = on_growth
        self.size: int = ENTRY_BYTES
        """About how many bytes of memory it takes."""
        self._revision = revision
        self._now = asyncio.get_running_loop().time
        self.changed: int = revision.advance()
        """The revision of the last change of anything but the counts."""
        self.counted: int = 0
        """The revision of the last message."""

    @property
    def level(self) -> AttributionLevel | None:
        """How closely the caller is attributed; None before its request."""
        return None if self.handshake is None else self.handshake.level

    @property
    def peer_host(self) -> str:
        """The caller's address without its port."""
        return self.peer.rpartition(":")[0]

    @property
    def is_open(self) -> bool:
        """Whether it is a websocket that is open."""
        return self.opened and self.ended_at is None

    @property
    def used(self) -> bool:
        """Whether the request was served: a websocket opened, or an answer below 400."""
        return self.opened or self.state == "answered"

    @property
    def state(self) -> str:
        """One of: handshaking, open, closed, rejected, answered (a plain HTTP request)."""
        if self.opened:
            return "closed" if self.ended_at is not None else "open"
        status = None if self.handshake is None else self.handshake.status
        if status is None or status == 101:
            return "closed" if self.ended_at is not None else "handshaking"
        return "rejected" if status >= 400 or self._asked_upgrade else "answered"

    @property
    def payload(self) -> int:
        """Payload both ways, in bytes."""
        counts = self.counts()
        return counts[2] + counts[3]

    def touch(self) -> None:
        """Note that something but the counts has changed."""
        self.changed = self._revision.advance()

    def request(self, handshake: Handshake) -> None:
        """The request has come."""
        self.handshake = handshake
        self.user_agent = handshake.headers.get("User-Agent", "")
        self._asked_upgrade = "Upgrade" in handshake.headers
        self.touch()
        self._grow(size_of(handshake))

    def open(self, connection: Connection) -> None:
        """The request has become a websocket."""
        self.connection = connection
        self.opened = True
        self.touch()

    def end(self) -> None:
        """The connection is over, or the request is. Idempotent."""
        if self.ended_at is not None:
            return
        self.ended_at = self._now()
        self._note_secured()
        self._socket = None
        if self.connection is not None:
            self._counts = self.counts()
            self.close_code = self.connection.close_code or 1006
            self.connection = None
        self.touch()

    def received(self, data: str | bytes, size: int) -> None:
        """A message of the peer came in."""
        self._note("in", data, size)

    def sent(self, data: str | bytes, size: int) -> None:
        """A message went out."""
        self._note("out", data, size)

    def struck(self, fault: Fault) -> None:
        """The connection met a fault."""
        self.fault = in_words(fault)
        self.touch()

    def counts(self) -> tuple[int, int, int, int]:
        """Messages in and out; bytes in and out."""
        one = self.connection
        if one is None:
            return self._counts
        return (one.messages_received, one.messages_sent, one.bytes_received, one.bytes_sent)

    def row(self) -> dict[str, Any]:
        """What a page shows of it in one row."""
        return {
            "number": self.number,
            "line": self.line,
            "supersededBy": self.superseded_by,
            "level": None if self.level is None else self.level.name,
            "state": self.state,
            "peer": self.peer,
            **self._request(),
            "code": self.close_code,
            "fault": self.fault,
            "times": self._times(),
            "counts": self.counts(),
        }

    def details(self) -> dict[str, Any]:
        """What a page shows of it alone: its row, its headers, its log, its transcript."""
        return {
            "row": self.row(),
            "headers": [] if self.handshake is None else list(self.handshake.headers.items()),
            "messages": [
                [run.number, run.direction, run.type, run.first, run.last, run.count, run.size]
                for run in self.log.runs
            ],
            "messagesGivenUp": self.log.messages_given_up,
            "transcript": [
                [line.number, line.direction, line.at, line.text, line.final]
                for line in self.log.transcripts
            ],
            "transcriptGivenUp": self.log.transcripts_given_up,
        }

    def _note(self, direction: Direction, data: str | bytes, size: int) -> None:
        now = self._now()
        before = self.log.size
        self.log.add(direction, data, size, now)
        if self.first_message_at is None:
            self.first_message_at = now
            self.touch()
        self.counted = self._revision.advance()
        self._grow(self.log.size - before)

    def _grow(self, size: int) -> None:
        self.size += size
        self._on_growth(self, size)

    def _note_secured(self) -> None:
        if self._socket is not None:
            self._secured_at = self._socket.secured_at

    def _request(self) -> dict[str, str | int | None]:
        handshake = self.handshake
        if handshake is None:
            return {}
        identity = handshake.identity
        return {
            "job": identity.job_id,
            "room": identity.room_id,
            "agent": identity.agent_id,
            "session": _shown(handshake.session_id),
            "client": _shown(self.user_agent),
            "path": _shown(handshake.path),
            "model": _shown(handshake.model),
            "status": handshake.status,
            "reason": handshake.reason,
        }

    def _times(self) -> dict[str, float | None]:
        handshake = self.handshake
        self._note_secured()
        return {
            # What came before the first request of a connection belongs to that one alone.
            "accepted": self._accepted_at if self._first else None,
            "secured": self._secured_at if self._first else None,
            "requested": None if handshake is None else handshake.request_at,
            "answered": None if handshake is None else handshake.answered_at,
            "message": self.first_message_at,
            "ended": self.ended_at,
        }


def _shown(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
