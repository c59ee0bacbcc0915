"""The first message of an open websocket: asked for where it is known how, else listened for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from yarl import URL

from agent_conn.gateway.sessions.protocol import SttCreate, TtsCreate, to_json

LISTEN_SECONDS = 0.5
"""How long a peer that is asked nothing may take to say something."""

_REQUESTS: dict[str, type[SttCreate | TtsCreate]] = {"stt": SttCreate, "tts": TtsCreate}
_MAX_TYPE = 80
_ENDS = (
    aiohttp.WSMsgType.CLOSE,
    aiohttp.WSMsgType.CLOSING,
    aiohttp.WSMsgType.CLOSED,
    aiohttp.WSMsgType.ERROR,
)
_NO_CLOSE_FRAME = (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)


class RefusedAfterUpgrade(Exception):
    """The websocket opened, and then the peer refused or was lost.

    Args:
        what: what it did.
        text: what it said.
        code: the close code, or that of its error message.
        cut: whether the connection was lost instead.
    """

    def __init__(
        self, what: str, *, text: str = "", code: int | None = None, cut: bool = False
    ) -> None:
        super().__init__(what)
        self.what = what
        self.text = text
        self.code = code
        self.cut = cut


def request_for(url: URL) -> str | None:
    """The message that opens a session at `url`, or None where the path is no known service."""
    request = _REQUESTS.get(url.name)
    return None if request is None else to_json(request(model=url.query.get("model")))


class Greeting:
    """What a connection runs as its ``on_open``."""

    def __init__(self, request: str | None) -> None:
        self._request = request
        self.received: str | None = None
        """The type of the first message, once it has come."""

    async def __call__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Wait for the first message.

        Raises:
            RefusedAfterUpgrade: the peer refused, or left.
        """
        if self._request is not None:
            await ws.send_str(self._request)
            while self.received != "session.created":
                await self._receive(ws)
            return
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                await self._receive(ws)
        except TimeoutError:
            return

    async def _receive(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        message = await ws.receive()
        if message.type in _ENDS:
            raise _end(None if message.type is aiohttp.WSMsgType.ERROR else ws.close_code)
        told = _parse(message.data)
        kind = told.get("type")
        if self._request is not None and kind == "error":
            raise _refused(told)
        self.received = kind[:_MAX_TYPE] if isinstance(kind, str) else message.type.name.lower()


def _end(code: int | None) -> RefusedAfterUpgrade:
    if code in _NO_CLOSE_FRAME:
        return RefusedAfterUpgrade("the connection was cut without a Close frame", cut=True)
    return RefusedAfterUpgrade("the gateway closed the websocket", code=code)


def _refused(told: dict[str, Any]) -> RefusedAfterUpgrade:
    text, code = told.get("message"), told.get("code")
    return RefusedAfterUpgrade(
        "the gateway answered with an error message",
        text=text if isinstance(text, str) else "",
        code=code if isinstance(code, int) else None,
    )


def _parse(data: object) -> dict[str, Any]:
    if not isinstance(data, str):
        return {}
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
