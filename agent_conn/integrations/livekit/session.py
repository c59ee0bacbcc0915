"""``attributed_session``: the one line that attributes LiveKit's STT and TTS."""

from __future__ import annotations

from typing import Any

import aiohttp
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, JobContext
from livekit.agents.utils import http_context

from agent_conn._attribution import AttributionMiddleware, Origins
from agent_conn._identity import AgentIdentity
from agent_conn._options import check_seconds
from agent_conn.errors import ConfigurationError
from agent_conn.integrations.livekit.gateway import default_base_url, is_fake
from agent_conn.integrations.livekit.job import find_job, job_identity, room_connected
from agent_conn.integrations.livekit.pools import PoolRefresher

DIAL_SECONDS = 1.0
"""What a wait must leave of a client's budget: a dial over TLS at 300 ms round trip."""

_KEEPALIVE = 120.0
_LIMIT_PER_HOST = 50


def attributed_session(
    ctx: JobContext | None = None,
    *,
    connect_wait: float = 2.0,
    origins: Origins | None = None,
    client_timeout: float = DEFAULT_API_CONNECT_OPTIONS.timeout,
) -> AttributedSession:
    """A session to hand to LiveKit's classes as ``http_session=``; its dials are attributed.

    ::

        session = attributed_session()
        stt, tts = inference.STT(http_session=session), inference.TTS(http_session=session)

    A dial to the gateway waits for the job's room, then carries every id that is known. One
    that a pool keeps, as ``inference.TTS`` does, and that went out without the agent's id, is
    replaced when the room connects. In a job it uses the connector of LiveKit's own session,
    and is closed with the job. A fake job is not waited for; outside a job nothing is added
    but a session id. Call it where an event loop runs.

    Args:
        ctx: by default the job that this code runs in.
        connect_wait: seconds that a dial waits for the room; 0 only looks.
        origins: URLs of the gateways; by default ``LIVEKIT_INFERENCE_URL``, else LiveKit's.
            Name the ``base_url`` that the classes were given.
        client_timeout: the seconds that the client gives a dial, the wait included: 10 in
            LiveKit's classes, if no ``conn_options`` say otherwise.

    Raises:
        ConfigurationError: an argument is wrong, named in the message; so is a
            ``connect_wait`` that leaves less than a second of ``client_timeout``.
    """
    job = find_job(ctx)
    _check_budget(connect_wait, client_timeout)
    room = room_connected(job.room) if job is not None else None
    identity = job_identity(job) if job is not None else AgentIdentity()
    attribution = AttributionMiddleware(
        default_base_url() if origins is None else origins,
        identity=identity,
        room_connected=room,
        connect_wait=0 if is_fake(job) else connect_wait,
    )
    pools = PoolRefresher(attribution, identity, room) if room is not None else None
    session = AttributedSession(attribution, pools, _livekit_session(), _proxy(job))
    if isinstance(job, JobContext):
        job.add_shutdown_callback(session.close)
    return session


class _Subclassable:
    """Takes aiohttp's warning at its subclassing, which is about attributes that may clash."""

    def __init_subclass__(cls) -> None:
        pass


class AttributedSession(_Subclassable, aiohttp.ClientSession):
    """What ``attributed_session`` makes: an ``aiohttp.ClientSession`` with ``attribution``.

    It is a class of its own because a session's callers, and so the pool that dials, can be
    seen in its ``ws_connect`` alone.
    """

    ATTRS = aiohttp.ClientSession.ATTRS | {"_attribution", "_pools"}

    def __init__(
        self,
        attribution: AttributionMiddleware,
        pools: PoolRefresher | None,
        parent: aiohttp.ClientSession | None,
        proxy: str | None,
    ) -> None:
        connector = None if parent is None else parent.connector
        super().__init__(
            connector=connector
            or aiohttp.TCPConnector(limit_per_host=_LIMIT_PER_HOST, keepalive_timeout=_KEEPALIVE),
            connector_owner=connector is None,
            proxy=proxy,
            middlewares=(attribution,) if pools is None else (pools, attribution),
        )
        self._attribution = attribution
        self._pools = pools

    @property
    def attribution(self) -> AttributionMiddleware:
        """What attributes the dials; its ``records`` tell how each went out."""
        return self._attribution

    def ws_connect(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (aiohttp's own)
        """As aiohttp's."""
        if self._pools is not None:
            self._pools.note_caller()
        return super().ws_connect(*args, **kwargs)

    async def close(self) -> None:
        """Close the session; a connector of LiveKit's stays open."""
        if self._pools is not None:
            await self._pools.aclose()
        await super().close()


def _check_budget(connect_wait: float, client_timeout: float) -> None:
    check_seconds("client_timeout", client_timeout)
    check_seconds("connect_wait", connect_wait, zero=True)
    if connect_wait and connect_wait > client_timeout - DIAL_SECONDS:
        raise ConfigurationError(
            f"connect_wait of {connect_wait:g} s leaves less than {DIAL_SECONDS:g} s to dial of "
            f"the {client_timeout:g} s that the client gives it (client_timeout)"
        )


def _livekit_session() -> aiohttp.ClientSession | None:
    try:
        return http_context.http_session()
    except RuntimeError:
        return None


def _proxy(job: JobContext | None) -> str | None:
    return job.proc.http_proxy if isinstance(job, JobContext) else None
