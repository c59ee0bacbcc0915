"""The inspector's connections as a HAR (HTTP Archive 1.2), which browsers' tools can open.

What HAR has no place for stands under names that begin with an underscore, as its rules ask. No
text of a transcript is in it, no audio and no credential, so that it can be shown to others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import agent_conn
from agent_conn.gateway.inspector.entry import Entry
from agent_conn.gateway.inspector.journal import Journal
from agent_conn.gateway.server.handshakes import Handshake

NOT_KNOWN = -1
"""What HAR writes for a number that is not known."""
AT_ONCE = 50


async def as_har(journal: Journal, scheme: str) -> AsyncIterator[bytes]:
    """Give the archive of every kept connection in parts; `scheme` is http or https."""
    creator = {"name": "agent-conn", "version": agent_conn.__version__}
    yield f'{{"log": {{"version": "1.2", "creator": {json.dumps(creator)}, "entries": ['.encode()
    # Wall time less the loop's, since entries have the loop's.
    epoch = datetime.now(UTC).timestamp() - asyncio.get_running_loop().time()
    entries = journal.changed_since(-1)
    for start in range(0, len(entries), AT_ONCE):
        part = [json.dumps(_entry(one, scheme, epoch)) for one in entries[start : start + AT_ONCE]]
        yield ((",\n" if start else "\n") + ",\n".join(part)).encode()
        await asyncio.sleep(0)
    yield b"\n]}}\n"


def _entry(entry: Entry, scheme: str, epoch: float) -> dict[str, Any]:
    details = entry.details()
    row, times = details["row"], details["row"]["times"]
    begun = times["accepted"] or times["requested"] or 0.0
    ended = times["ended"] or asyncio.get_running_loop().time()
    return {
        "startedDateTime": datetime.fromtimestamp(epoch + begun, UTC).isoformat(),
        "time": _milliseconds(begun, ended),
        "request": _request(entry.handshake, scheme),
        "response": _response(row),
        "cache": {},
        "timings": {
            "ssl": _milliseconds(times["accepted"], times["secured"]),
            # What the client took to send its request: the wait for its room, mostly.
            "blocked": _milliseconds(times["secured"], times["requested"]),
            "send": 0,
            "wait": max(0.0, _milliseconds(times["requested"], times["answered"])),
            "receive": max(0.0, _milliseconds(times["answered"], ended)),
        },
        "serverIPAddress": "",
        "connection": str(entry.socket_number),
        "_number": row["number"],
        "_state": row["state"],
        "_attribution": row["level"],
        "_ids": {name: row.get(name) for name in ("agent", "room", "job", "session")},
        "_peer": row["peer"],
        "_reason": row.get("reason"),
        "_fault": row["fault"],
        "_closeCode": row["code"],
        "_counts": dict(zip(("in", "out", "bytesIn", "bytesOut"), row["counts"], strict=True)),
        "_messages": [
            {"way": way, "type": kind, "count": count, "bytes": size, "time": epoch + first}
            for _, way, kind, first, _, count, size in details["messages"]
        ],
    }


def _request(handshake: Handshake | None, scheme: str) -> dict[str, Any]:
    if handshake is None:
        return _message() | {"method": "", "url": "", "queryString": [], "bodySize": NOT_KNOWN}
    if "Upgrade" in handshake.headers:
        scheme = scheme.replace("http", "ws")
    query = [] if handshake.model is None else [{"name": "model", "value": handshake.model}]
    return _message(dict(handshake.headers.items())) | {
        "method": handshake.method,
        "url": f"{scheme}://{handshake.headers.get('Host', '')}{handshake.path}",
        "queryString": query,
        "bodySize": NOT_KNOWN,
    }


def _response(row: dict[str, Any]) -> dict[str, Any]:
    status = row.get("status") or 0
    known = status in HTTPStatus.__members__.values()
    return _message() | {
        "status": status,
        "statusText": HTTPStatus(status).phrase if known else "",
        "content": {"size": row["counts"][3], "mimeType": "x-unknown"},
        "redirectURL": "",
        "bodySize": NOT_KNOWN,
    }


def _message(headers: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [{"name": name, "value": value} for name, value in (headers or {}).items()],
        "headersSize": NOT_KNOWN,
    }


def _milliseconds(start: float | None, end: float | None) -> float:
    if start is None or end is None:
        return NOT_KNOWN
    return round((end - start) * 1000, 3)
