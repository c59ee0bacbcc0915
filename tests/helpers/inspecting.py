"""What the inspector's tests read: its events and its details, as a page would."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from agent_conn import InferenceConnection
from agent_conn.gateway import Gateway


@dataclass
class Events:
    """One page's events, and what they make of its connections."""

    response: aiohttp.ClientResponse
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    last_id: str = ""

    async def until_status(self) -> dict[str, Any]:
        """Read up to the end of one look."""
        while await self._read() != "status":
            pass
        return self.status

    async def until(self, number: int, **wanted: Any) -> dict[str, Any]:
        """Read until a connection's row is so."""
        async with asyncio.timeout(5):
            while not (self.rows.get(number, {}).items() >= wanted.items()):
                await self.until_status()
        return self.rows[number]

    async def _read(self) -> str:
        name, data, identifier = "", "", ""
        while line := (await self.response.content.readline()).decode().rstrip("\n"):
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                data = value
            elif key == "id":
                identifier = value
        if name:
            self.last_id = identifier or self.last_id
            self.names.append(name)
            self._take(name, json.loads(data))
        return name

    def _take(self, name: str, data: Any) -> None:
        if name == "reset":
            self.rows.clear()
        elif name == "rows":
            self.rows.update((row["number"], row) for row in data)
        elif name == "counts":
            for number, *counts in data:
                self.rows[number]["counts"] = counts
        elif name == "gone":
            for number in data:
                self.rows.pop(number, None)
        else:
            self.status = data


@contextlib.asynccontextmanager
async def events_of(
    http: aiohttp.ClientSession, gateway: Gateway, last_id: str = ""
) -> AsyncIterator[Events]:
    url = gateway.inspector_url + "inspector/events"
    async with http.get(url, headers={"Last-Event-ID": last_id}) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        yield Events(response)


async def details_of(http: aiohttp.ClientSession, gateway: Gateway, number: int) -> Any:
    async with http.get(f"{gateway.inspector_url}inspector/connections/{number}") as response:
        return await response.json() if response.status == 200 else response.status


def dial(
    session: aiohttp.ClientSession, gateway: Gateway, path: str = "/v1/echo", **options: Any
) -> InferenceConnection:
    return InferenceConnection(session, gateway.url(path), **options)
