"""The inspector's server-sent events: what changed since a page last looked, a few times a second.

Nothing is queued for a page. Each look asks the journal for what changed since the last write
was done, so that a slow page gets fewer and fuller events, and delays nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from aiohttp import web

from agent_conn.gateway.inspector.journal import Journal

LOOK_SECONDS = 0.2
"""Seconds between two looks, so that a page gets at most five updates a second."""
ROWS_AT_ONCE = 100
"""Rows in one event, so that writing it as JSON never holds the loop up for long."""
KEEP_ALIVE_LOOKS = 50
RETRY_MILLISECONDS = 1000


class Stream:
    """One page's events. `faults` gives the faults that wait for a connection."""

    def __init__(self, journal: Journal, faults: Callable[[], list[dict[str, Any]]]) -> None:
        self._journal = journal
        self._faults = faults
        self._seen: int | None = None
        self._faults_seen: list[dict[str, Any]] | None = None
        self._quiet = 0

    async def run(
        self, request: web.Request, response: web.StreamResponse, closing: asyncio.Event
    ) -> None:
        """Write events until `closing` is set, or the page is gone.

        Raises:
            ConnectionError: the page went while something was written.
        """
        self._seen = self._parse(request.headers.get("Last-Event-ID", ""))
        await response.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
        while request.transport is not None and not closing.is_set():
            async for event in self._look():
                await response.write(event)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await closing.wait()
            except TimeoutError:
                continue
        if closing.is_set() and request.transport is not None:
            await response.write(_event("goodbye", {}))

    async def _look(self) -> AsyncIterator[bytes]:
        journal = self._journal
        journal.look()
        since, until, faults = self._seen, journal.revision, self._faults()
        if since == until and faults == self._faults_seen:
            self._quiet += 1
            if self._quiet % KEEP_ALIVE_LOOKS == 0:
                yield b":\n\n"
            return
        self._quiet = 0
        if since is None or not journal.remembers(since):
            since = -1
            yield _event("reset", {})
        else:
            if gone := journal.gone_since(since):
                yield _event("gone", gone)
            if counts := [
                (entry.number, *entry.counts()) for entry in journal.counted_since(since)
            ]:
                yield _event("counts", counts)
        for entries in _batches(journal.changed_since(since)):
            yield _event("rows", [entry.row() for entry in entries])
            await asyncio.sleep(0)
        # The id goes with the last event: a page that missed it has missed the look.
        status = journal.status() | {"faults": faults}
        yield _event("status", status, f"{journal.epoch}-{until}")
        self._seen, self._faults_seen = until, faults

    def _parse(self, last_event_id: str) -> int | None:
        epoch, _, revision = last_event_id.partition("-")
        if epoch != self._journal.epoch or not (revision.isascii() and revision.isdigit()):
            return None
        return int(revision) if len(revision) < 19 else None


def _batches(entries: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(entries), ROWS_AT_ONCE):
        yield entries[start : start + ROWS_AT_ONCE]


def _event(name: str, data: object, identifier: str | None = None) -> bytes:
    # JSON escapes line breaks, so that the data is one line whatever is in it.
    text = json.dumps(data, separators=(",", ":"))
    head = f"id: {identifier}\n" if identifier is not None else ""
    return f"{head}event: {name}\ndata: {text}\n\n".encode()
