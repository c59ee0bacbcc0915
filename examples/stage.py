"""What a round trip takes place in: a gateway, and a stand-in for a job's room."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from command_line import token_source

from agent_conn import AgentIdentity, TokenSource
from agent_conn.gateway import Gateway, LocalSpeech, Reset, mint_token

Cut = Callable[[str], None]
"""Resets the open connections of a service."""


class Room:
    """Connects `after` seconds from now; with None there is a job alone, without a room."""

    def __init__(self, after: float | None) -> None:
        self.connected: asyncio.Event | None = None
        if after is not None:
            self.connected = asyncio.Event()
            asyncio.get_running_loop().call_later(after, self.connected.set)

    @property
    def state(self) -> str:
        """What there is to tell of it."""
        if self.connected is None:
            return "none"
        return "connected" if self.connected.is_set() else "connecting"

    def identity(self) -> AgentIdentity:
        """Return the ids that are known by now."""
        if self.connected is None:
            return AgentIdentity.best_effort(job_id="AJ_roundtrip")
        return AgentIdentity.best_effort(
            job_id="AJ_roundtrip", room_id="RM_roundtrip", agent_id=self._participant_sid
        )

    def _participant_sid(self) -> str:
        if self.connected is None or not self.connected.is_set():
            text = "cannot access local participant before connecting"
            raise Exception(text)  # noqa: TRY002  (as LiveKit's room does)
        return "PA_roundtrip"


@asynccontextmanager
async def gateway_at(
    options: argparse.Namespace,
) -> AsyncIterator[tuple[str, TokenSource | None, ssl.SSLContext | bool, Cut]]:
    """Give a gateway's base URL, the token for it, what TLS to trust, and what cuts it off.

    Without `--url` it is one on this machine, with real speech. Another is never cut off.
    """
    if options.url:
        yield options.url, token_source(options), True, lambda _: None
        return
    key, secret = options.api_key or "local", options.api_secret or secrets.token_hex(32)
    async with (
        LocalSpeech() as speech,
        Gateway(speech, tls=True, api_key=key, api_secret=secret) as gateway,
    ):
        await speech.warm_up()

        def cut(service: str) -> None:
            for connection in gateway.connections:
                if connection.path.endswith(service):
                    connection.inject(Reset("open"))

        mint = partial(mint_token, key, secret)
        yield gateway.base_url, mint, gateway.client_ssl or True, cut
