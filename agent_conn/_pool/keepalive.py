"""A message to the peer where nothing was sent for long, so that it does not hang up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import aiohttp

from agent_conn._options import check_seconds
from agent_conn.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """What to send after a silence. Providers close sessions without a message for 8 to 30 s.

    Raises:
        ConfigurationError: a value is wrong; the message names it.
    """

    message: str | bytes = field(repr=False)
    """Sent as a text or a binary message; pings do not count for providers."""
    every: float = 5.0
    """Seconds without a message to the peer. Choose half of what the provider waits, or less."""

    def __post_init__(self) -> None:
        message: object = self.message
        if not isinstance(message, str | bytes):
            raise ConfigurationError(f"message must be str or bytes, got {type(message).__name__}")
        check_seconds("every", self.every)


async def keep_alive(ws: aiohttp.ClientWebSocketResponse, keepalive: Keepalive) -> None:
    """Send ``keepalive.message`` whenever it is due, until the websocket ends."""
    time, message = asyncio.get_running_loop().time, keepalive.message
    sent = time()
    while not ws.closed:
        # Without ``last_sent`` it is sent as often as if nobody else sent anything.
        due = max(sent, getattr(ws, "last_sent", None) or sent) + keepalive.every
        if due > time():
            await asyncio.sleep(due - time())
            continue
        sent = time()
        try:
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
        except (OSError, aiohttp.ClientError):
            # Whoever reads the websocket is told of its end.
            return
