"""Which connection took over from which: a make-before-break upgrade, as a gateway can tell it.

A client that upgrades opens a second connection with a better identity beside the first, and
nothing on the wire says that they belong together. The rule: a connection that opens while
another is open takes over from it if both have the same job (the same room where they have no
job), path, model, address and client, and the new one has the higher attribution level. Of
several that fit, it is the one that opened first and has not been taken over from yet. If the
new one ends first, the old one stands for itself again.
"""

from __future__ import annotations

from typing import TypeAlias

from agent_conn.gateway.inspector.entry import Entry

_Key: TypeAlias = tuple[str | None, ...]


class UpgradeChains:
    """Joins each connection that opens to the one that it takes over from."""

    def __init__(self) -> None:
        self._open: dict[_Key, dict[int, Entry]] = {}

    def join(self, entry: Entry) -> None:
        """Put `entry`, which has just opened, into the line that it takes over."""
        key, level = _key_of(entry), entry.level
        if key is None or level is None:
            return
        same = self._open.setdefault(key, {})
        for old in same.values():
            if old.superseded_by is None and old.level is not None and old.level < level:
                old.superseded_by = entry.number
                old.touch()
                entry.predecessor, entry.line = old, old.line
                break
        same[entry.number] = entry

    def leave(self, entry: Entry) -> None:
        """Take out `entry`, which has ended. Idempotent."""
        key = _key_of(entry)
        same = None if key is None else self._open.get(key)
        if key is None or same is None or same.pop(entry.number, None) is None:
            return
        if not same:
            del self._open[key]
        old, entry.predecessor = entry.predecessor, None
        if old is not None and old.is_open:
            old.superseded_by = None
            old.touch()


def _key_of(entry: Entry) -> _Key | None:
    handshake = entry.handshake
    if handshake is None:
        return None
    identity = handshake.identity
    if identity.job_id is not None:
        caller = ("job", identity.job_id)
    elif identity.room_id is not None:
        caller = ("room", identity.room_id)
    else:
        return None
    return (*caller, handshake.path, handshake.model, entry.peer_host, entry.user_agent)
