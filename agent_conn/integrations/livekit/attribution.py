"""``attribute_job``: one line attributes everything that a LiveKit job dials."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from types import SimpleNamespace

import aiohttp
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, JobContext
from yarl import URL

from agent_conn._attribution import MAX_RECORDS
from agent_conn._dial.network import watch_network
from agent_conn._identity import DEFAULT_HEADER_NAMES
from agent_conn._options import check_seconds
from agent_conn._record import ConnectionRecord
from agent_conn.errors import ConfigurationError, HandshakeInvalid
from agent_conn.integrations.livekit.errors import to_api_error
from agent_conn.integrations.livekit.gateway import default_base_url, is_fake
from agent_conn.integrations.livekit.job import has_left_room, job_identity, room_connected
from agent_conn.integrations.livekit.request import JobRequest, SharedWait, pre_dial_request
from agent_conn.integrations.livekit.seams import current_job, hang, job_session

NETWORK_TIMEOUT = 5.0
"""The kernel ends a websocket this many seconds after its network or host is gone."""

LONGEST_WAIT = DEFAULT_API_CONNECT_OPTIONS.timeout - 1.0
"""LiveKit's classes bound wait and dial together. The dial needs 1 s over TLS at 300 ms."""

logger: logging.Logger = logging.getLogger("agent_conn")


def attribute_job(ctx: JobContext | None = None, *, connect_wait: float = 8.0) -> JobAttribution:
    """Attribute what a LiveKit job dials. Call it once, first in the entrypoint.

    ::

        async def entrypoint(ctx):
            attribute_job(ctx)
            await AgentSession(...).start(agent, room=ctx.room)

    It works on the session that LiveKit keeps for the job. A request that names this job waits
    for the job's room, dials meanwhile, and gets the ids that it lacks. Other requests get no
    ids. All dials share one wait, which begins with the first dial. After ``connect_wait``
    seconds they only look. A fake job does not wait. A redirect is refused. Each websocket ends
    5 s after its network is dead. All of this ends with LiveKit's session, after the job's
    shutdown callbacks. A second call in the same job returns the same object.

    Args:
        ctx: the job that this code runs in. That is also the default.
        connect_wait: seconds to wait for the room, at most 9; 0 only looks. Pass less if a
            class has ``conn_options`` with a timeout below 10 s.

    Raises:
        ConfigurationError: an argument is wrong, or this code does not run in a job.
        UnsupportedLiveKit: this release of LiveKit Agents lacks something that this needs.
    """
    seconds = check_seconds("connect_wait", connect_wait, zero=True)
    if seconds > LONGEST_WAIT:
        raise ConfigurationError(
            f"connect_wait must be at most {LONGEST_WAIT:g} s, got {seconds:g}: LiveKit's classes "
            f"give wait and dial {DEFAULT_API_CONNECT_OPTIONS.timeout:g} s together"
        )
    job = current_job(ctx)
    session = job_session(job)
    for trace in session.trace_configs:
        if isinstance(trace, _JobTrace):
            return trace.attribution
    attribution = JobAttribution(job, 0.0 if is_fake(job) else seconds)
    hang(_JobTrace(attribution), session)
    return attribution


class JobAttribution:
    """The records of one job's requests. ``attribute_job`` returns it."""

    def __init__(self, job: JobContext, connect_wait: float) -> None:
        self._identity = job_identity(job)
        self._wait = SharedWait(room_connected(job.room), connect_wait, lambda: has_left_room(job))
        self._proxy = job.proc.http_proxy
        self._gateways = {_origin(URL(default_base_url()))}
        self._reasons_told: set[str] = set()
        self._records: deque[ConnectionRecord] = deque(maxlen=MAX_RECORDS)

    def __repr__(self) -> str:
        return f"<JobAttribution of {self._identity().job_id}, {len(self._records)} requests>"

    @property
    def records(self) -> tuple[ConnectionRecord, ...]:
        """How each of the last 1,024 attributed requests went out, the oldest first.

        ``dialed`` is what was left of the dial after the wait. A record does not tell how its
        connection ended.
        """
        return tuple(self._records)

    def covers(self, url: URL, headers: Mapping[str, str]) -> bool:
        """Whether a request with ``headers`` names this job.

        The log tells why a request to a gateway does not, once for each reason.
        """
        job_id, named = self._identity().job_id, headers.get(DEFAULT_HEADER_NAMES.job_id)
        if job_id is not None and named == job_id:
            self._gateways.add(_origin(url))
            return True
        reason = "it names no job" if named is None else "it names another job"
        if _origin(url) in self._gateways and reason not in self._reasons_told:
            self._reasons_told.add(reason)
            extra = {"path": url.path, "reason": reason}
            logger.warning("request_not_attributed: %s, because %s", url.path, reason, extra=extra)
        return False

    async def prepare(
        self, request: JobRequest, session: aiohttp.ClientSession, method: str, url: URL
    ) -> None:
        """Have ``request`` wait for the room and add the ids that it lacks."""
        dial = pre_dial_request(session, method, url, self._proxy)
        ready = False
        try:
            await request.prepare(self._wait, self._identity, dial)
            ready = True
        finally:
            if not ready:
                self.keep(request)

    def keep(self, request: JobRequest) -> None:
        """Keep the record of a request that has ended, and log it."""
        record = request.record()
        self._records.append(record)
        if logger.isEnabledFor(logging.INFO):
            level = record.attribution.name
            extra = {"session_id": record.session_id, "attribution": level}
            logger.info(
                "request_attributed: session_id=%s, attribution=%s",
                *extra.values(),
                extra=extra,
            )


class _JobTrace(aiohttp.TraceConfig):
    """Prepares each request of a job's session. aiohttp awaits these methods.

    ``trace`` is the namespace that aiohttp keeps for one request.
    """

    def __init__(self, attribution: JobAttribution) -> None:
        super().__init__()
        self.attribution: JobAttribution = attribution
        self.on_request_start.append(self._on_start)
        self.on_request_redirect.append(self._on_redirect)
        self.on_connection_create_start.append(self._on_dial)
        self.on_connection_create_end.append(self._on_connected)
        self.on_connection_reuseconn.append(self._on_connected)
        self.on_request_end.append(self._on_end)
        self.on_request_exception.append(self._on_failure)

    async def _on_start(
        self,
        session: aiohttp.ClientSession,
        trace: SimpleNamespace,
        params: aiohttp.TraceRequestStartParams,
    ) -> None:
        trace.request = None
        if self.attribution.covers(params.url, params.headers):
            request = JobRequest(params.headers)
            await self.attribution.prepare(request, session, params.method, params.url)
            trace.request = request

    async def _on_redirect(
        self,
        _session: aiohttp.ClientSession,
        trace: SimpleNamespace,
        params: aiohttp.TraceRequestRedirectParams,
    ) -> None:
        if trace.request is not None:
            # aiohttp would carry the ids along. LiveKit retries by its own errors alone.
            status = params.response.status
            refused = HandshakeInvalid(f"the gateway redirects ({status}), which is refused")
            raise to_api_error(refused)

    async def _on_dial(
        self, _session: aiohttp.ClientSession, trace: SimpleNamespace, _params: object
    ) -> None:
        if trace.request is not None:
            trace.request.dialing()

    async def _on_connected(
        self, _session: aiohttp.ClientSession, trace: SimpleNamespace, _params: object
    ) -> None:
        if trace.request is not None:
            trace.request.connected()

    async def _on_end(
        self,
        _session: aiohttp.ClientSession,
        trace: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        response = params.response
        connection = response.connection
        if response.status == 101 and connection is not None and connection.transport is not None:
            watch_network(connection.transport, NETWORK_TIMEOUT)
        if trace.request is not None:
            trace.request.answered(response.headers)
            self.attribution.keep(trace.request)

    async def _on_failure(
        self, _session: aiohttp.ClientSession, trace: SimpleNamespace, _params: object
    ) -> None:
        if trace.request is not None:
            self.attribution.keep(trace.request)


def _origin(url: URL) -> tuple[bool, str | None, int | None]:
    return url.scheme in {"https", "wss"}, url.host, url.port
