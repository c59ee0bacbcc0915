"""The inspector's bounded memory: the gateway's last connections, and what changed in them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from agent_conn._identity import AttributionLevel
from agent_conn.gateway.inspector.entry import Entry, Revision
from agent_conn.gateway.inspector.upgrades import UpgradeChains
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.sockets import PeerSocket
from agent_conn.gateway.sessions.connection import Connection

MAX_CONNECTIONS = 2_000
MAX_BYTES = 16 * 1024 * 1024
# A socket is listed without a request once that has been long enough to be seen.
BARE_SECONDS = 0.3


@dataclass(slots=True)
class _Usage:
    """What one level has used over the gateway's life, as far as it is not in an entry."""

    connections: int = 0
    bytes: int = 0


class Journal:
    """Keeps the last connections, in number and in bytes; the rest is counted, by level too."""

    def __init__(self, max_connections: int = MAX_CONNECTIONS, max_bytes: int = MAX_BYTES) -> None:
        self.epoch: str = secrets.token_hex(4)
        """Tells this journal's revisions from another's, which a page may remember."""
        self.given_up: int = 0
        self._max = max_connections
        self._max_bytes = max_bytes
        self._bytes = 0
        self._revision = Revision()
        self._entries: dict[int, Entry] = {}
        self._numbered = 0
        self._bare: dict[int, PeerSocket] = {}
        self._bare_entries: dict[int, Entry] = {}
        self._gone: deque[tuple[int, int]] = deque(maxlen=max_connections)
        self._upgrades = UpgradeChains()
        self._retired = {level: _Usage() for level in AttributionLevel}

    @property
    def revision(self) -> int:
        """How many changes there were so far."""
        return self._revision.value

    def get(self, number: int) -> Entry | None:
        """Return a connection that is kept."""
        return self._entries.get(number)

    def accepted(self, peer_socket: PeerSocket) -> None:
        """TCP was accepted; nobody knows yet for what."""
        self._bare[peer_socket.number] = peer_socket

    def closed(self, peer_socket: PeerSocket) -> None:
        """A socket was closed, with or without a request on it."""
        entry = self._bare_entries.pop(peer_socket.number, None)
        if peer_socket.number in self._bare:
            entry = self._take_up(peer_socket)
        if entry is not None:
            entry.end()

    def disregard(self, peer_socket: PeerSocket) -> None:
        """The socket is the inspector's own."""
        self._bare.pop(peer_socket.number, None)
        entry = self._bare_entries.pop(peer_socket.number, None)
        if entry is not None:
            self._remove(entry)

    def request(self, handshake: Handshake, peer_socket: PeerSocket) -> Entry:
        """A request has come, the first on its socket or a later one."""
        first = self._bare.pop(peer_socket.number, None) is not None
        entry = self._bare_entries.pop(peer_socket.number, None)
        if entry is None:
            entry = self._add(peer_socket, first=first)
        entry.request(handshake)
        return entry

    def opened(self, entry: Entry, connection: Connection) -> None:
        """The request has become a websocket."""
        entry.open(connection)
        self._upgrades.join(entry)

    def ended(self, entry: Entry) -> None:
        """The connection is over, or the request is. Idempotent."""
        self._upgrades.leave(entry)
        entry.end()

    def clear(self) -> None:
        """Forget what has ended, and count anew from what is open."""
        for entry in [one for one in self._entries.values() if one.ended_at is not None]:
            self._remove(entry)
        self._retired = {level: _Usage() for level in AttributionLevel}
        self.given_up = 0
        self._revision.advance()

    def look(self) -> None:
        """List the sockets that have been without a request for a while."""
        due = asyncio.get_running_loop().time() - BARE_SECONDS
        for peer_socket in [one for one in self._bare.values() if one.accepted_at <= due]:
            self._bare_entries[peer_socket.number] = self._take_up(peer_socket)

    def changed_since(self, revision: int) -> list[Entry]:
        """Return the connections in which more than the counts has changed, oldest first."""
        return [entry for entry in self._entries.values() if entry.changed > revision]

    def counted_since(self, revision: int) -> list[Entry]:
        """Return the connections in which only the counts have changed."""
        return [
            entry
            for entry in self._entries.values()
            if entry.counted > revision and entry.changed <= revision
        ]

    def gone_since(self, revision: int) -> list[int]:
        """Return the numbers of the connections that were given up."""
        return [number for when, number in self._gone if when > revision]

    def remembers(self, revision: int) -> bool:
        """Whether all that was given up since `revision` is still known."""
        forgotten = len(self._gone) == self._gone.maxlen and self._gone[0][0] > revision
        return revision <= self.revision and not forgotten

    def usage(self) -> dict[str, dict[str, int]]:
        """Return for each level: open websockets, requests served so far, payload bytes."""
        open_now = dict.fromkeys(AttributionLevel, 0)
        total = {level: one.connections for level, one in self._retired.items()}
        size = {level: one.bytes for level, one in self._retired.items()}
        for entry in self._entries.values():
            if entry.level is not None and entry.used:
                open_now[entry.level] += entry.is_open
                total[entry.level] += 1
                size[entry.level] += entry.payload
        return {
            level.name: {"open": open_now[level], "served": total[level], "bytes": size[level]}
            for level in AttributionLevel
        }

    def status(self) -> dict[str, Any]:
        """What a page shows of the gateway as a whole."""
        return {
            "now": asyncio.get_running_loop().time(),
            "clock": time.time(),
            "levels": self.usage(),
            "kept": len(self._entries),
            "givenUp": self.given_up,
            "mostKept": self._max,
        }

    def _take_up(self, peer_socket: PeerSocket) -> Entry:
        self._bare.pop(peer_socket.number, None)
        return self._add(peer_socket)

    def _add(self, peer_socket: PeerSocket, *, first: bool = True) -> Entry:
        if len(self._entries) >= self._max:
            self._give_up(self._oldest())
        self._numbered += 1
        entry = Entry(self._numbered, peer_socket, self._revision, self._grown, first=first)
        self._entries[entry.number] = entry
        self._grown(entry, entry.size)
        return entry

    def _grown(self, entry: Entry, size: int) -> None:
        if entry.number not in self._entries:
            # It was given up while it goes on.
            return
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            self._give_up(self._oldest())

    def _oldest(self) -> Entry:
        """The connection that ended first in line, or the first of all where none has."""
        ended = (entry for entry in self._entries.values() if entry.ended_at is not None)
        return next(ended, None) or next(iter(self._entries.values()))

    def _give_up(self, entry: Entry) -> None:
        self.given_up += 1
        if entry.level is not None and entry.used:
            self._retired[entry.level].connections += 1
            self._retired[entry.level].bytes += entry.payload
        self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        self._upgrades.leave(entry)
        self._bare_entries.pop(entry.socket_number, None)
        if self._entries.pop(entry.number, None) is not None:
            self._bytes -= entry.size
        self._gone.append((self._revision.advance(), entry.number))
