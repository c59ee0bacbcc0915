"""How this package and each neighbour open one websocket, with the same ids and token.

Nobody compresses, as this package does not unless asked to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import aiohttp

from agent_conn import AgentIdentity, InferenceConnection, __version__
from benchmarks.far import PATIENCE, Far

OURS, BARE = "agent_conn", "aiohttp"
NOT_INSTALLED = "not installed"
IDENTITY = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
TOKEN = "benchmark-token"  # noqa: S105  (opens nothing)
HEADERS = {
    **IDENTITY.headers(),
    "X-LiveKit-Session-ID": "session",
    "Authorization": f"Bearer {TOKEN}",
}
HEARTBEAT = 10.0


@dataclass(frozen=True)
class Opened:
    """One open websocket."""

    close: Callable[[], Awaitable[object]]
    echo: Callable[[str], Awaitable[object]] | None = None
    """Sends a text and waits for its echo; None where the peer gives its websocket to nobody."""


@dataclass(frozen=True)
class Place:
    """Where to dial, and the session for those that take one."""

    far: Far
    session: aiohttp.ClientSession


Opener = Callable[[], Awaitable[Opened]]


@asynccontextmanager
async def place(far: Far) -> AsyncIterator[Place]:
    """A session of one's own, whose connector has no limit."""
    connector = aiohttp.TCPConnector(limit=0, ssl=far.context or True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Place(far, session)


def _with_aiohttp(ws: aiohttp.ClientWebSocketResponse) -> Callable[[str], Awaitable[object]]:
    async def echo(text: str) -> object:
        await ws.send_str(text)
        return await ws.receive_str()

    return echo


def identity() -> AgentIdentity:
    """What most callers give: the ids are read when the request goes out."""
    return IDENTITY


def agent_conn(here: Place) -> Opener:
    """``InferenceConnection``, whose websocket is aiohttp's."""

    async def dial() -> Opened:
        connection = InferenceConnection(
            here.session, here.far.url(), identity=identity, token=TOKEN, heartbeat=HEARTBEAT
        )
        return Opened(echo=_with_aiohttp(await connection), close=connection.aclose)

    return dial


def bare_aiohttp(here: Place) -> Opener:
    """``session.ws_connect``."""

    async def dial() -> Opened:
        ws = await here.session.ws_connect(here.far.url(), headers=HEADERS, heartbeat=HEARTBEAT)
        return Opened(echo=_with_aiohttp(ws), close=ws.close)

    return dial


def _with_websockets(ws: Any) -> Callable[[str], Awaitable[object]]:  # noqa: ANN401  (a peer's)
    async def echo(text: str) -> object:
        await ws.send(text)
        return await ws.recv()

    return echo


def _websockets_options(here: Place) -> dict[str, Any]:
    return {
        "ssl": here.far.context,
        "additional_headers": HEADERS,
        "compression": None,
        "proxy": None,
    }


def websockets(here: Place) -> Opener:
    """``websockets.connect``."""
    from websockets.asyncio.client import connect  # noqa: PLC0415

    async def dial() -> Opened:
        ws = await connect(here.far.url(), **_websockets_options(here))
        return Opened(echo=_with_websockets(ws), close=ws.close)

    return dial


def livekit_agents(here: Place) -> Opener:
    """``inference.TTS.prewarm``, the shortest public way to a dial; it mints a token each time."""
    from livekit.agents import inference  # noqa: PLC0415

    opened = asyncio.Event()

    async def note(*_: object) -> None:
        opened.set()

    # It tells nobody of its websocket: aiohttp tells when the 101 came.
    traces = aiohttp.TraceConfig()
    traces.on_request_end.append(note)
    session = aiohttp.ClientSession(
        connector=here.session.connector, connector_owner=False, trace_configs=[traces]
    )
    tts = inference.TTS(
        model="cartesia/sonic-3",
        base_url=here.far.base_url,
        api_key="key",
        api_secret="secret-of-the-benchmark-of-32-bytes",  # noqa: S106  (of no account)
        http_session=session,
    )

    async def close() -> None:
        await tts.aclose()
        await session.close()

    async def dial() -> Opened:
        tts.prewarm()
        # It logs a failed dial and tells nobody.
        async with asyncio.timeout(PATIENCE):
            await opened.wait()
        return Opened(close)

    return dial


def pipecat(here: Place) -> Opener:
    """The dial that ``WebsocketService`` gives the services made of it."""
    import loguru  # noqa: PLC0415
    from pipecat.services.websocket_service import WebsocketService  # noqa: PLC0415

    loguru.logger.remove()

    class Service(WebsocketService):
        """The hooks that the base class asks of every service."""

        async def _connect_websocket(self) -> None: ...

        async def _disconnect_websocket(self) -> None: ...

        async def _connect(self) -> None: ...

        async def _disconnect(self) -> None: ...

        async def _receive_messages(self) -> None: ...

        async def dial(self) -> Opened:
            ws = await self._websocket_connect(here.far.url(), **_websockets_options(here))
            return Opened(echo=_with_websockets(ws), close=ws.close)

    dial: Opener = Service().dial
    return dial


PEERS: dict[str, Callable[[Place], Opener]] = {
    OURS: agent_conn,
    BARE: bare_aiohttp,
    "websockets": websockets,
    "livekit-agents": livekit_agents,
    "pipecat-ai": pipecat,
}
"""By distribution."""


def installed() -> list[str]:
    """The peers that can be had here."""
    return [name for name in PEERS if version(name)]


def version(distribution: str) -> str | None:
    """Which release is installed, if any."""
    if distribution == OURS:
        return __version__
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
