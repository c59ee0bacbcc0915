"""Checks that LiveKit Agents has what ``attribute_job`` needs."""

from __future__ import annotations

import asyncio

import aiohttp
from livekit.agents import JobContext
from livekit.agents import __version__ as livekit_version
from livekit.agents import job as livekit_job
from livekit.agents import utils as livekit_utils

from agent_conn.errors import ConfigurationError
from agent_conn.integrations.livekit.errors import UnsupportedLiveKit
from agent_conn.integrations.livekit.headers import livekit_headers
from agent_conn.integrations.livekit.job import job_identity


def current_job(ctx: JobContext | None) -> JobContext:
    """The job that this code runs in. ``ctx`` must be that job or None.

    Raises:
        ConfigurationError: this code does not run in a job, or ``ctx`` is another job.
    """
    try:
        job = livekit_job.get_job_context()
    except RuntimeError:
        job = None
    if job is None:
        raise ConfigurationError(
            "ctx must be a running job, got none: call attribute_job() in an entrypoint"
        )
    if ctx is not None and ctx is not job:
        raise ConfigurationError("ctx must be the job that this code runs in, got another object")
    return job


def job_session(job: JobContext) -> aiohttp.ClientSession:
    """The session that LiveKit keeps for ``job``, checked for what attribution needs.

    Raises:
        ConfigurationError: no event loop runs, or the job's context has no session.
        UnsupportedLiveKit: this release of LiveKit Agents lacks something that this needs.
    """
    make = getattr(getattr(livekit_utils, "http_context", None), "http_session", None)
    if not callable(make):
        raise _unsupported("livekit.agents.utils.http_context.http_session() does not exist")
    try:
        asyncio.get_running_loop()
        session = make()
    except RuntimeError:
        session = None
    if session is None:
        raise ConfigurationError(
            "ctx must be a job whose event loop runs, got one without: "
            "call attribute_job() in an async def"
        )
    if not isinstance(session, aiohttp.ClientSession):
        raise _unsupported("http_session() does not give an aiohttp.ClientSession")
    if not isinstance(getattr(session, "trace_configs", None), list):
        raise _unsupported("the session of http_session() has no list of trace_configs")
    _check_header_names(job)
    return session


def hang(trace: aiohttp.TraceConfig, session: aiohttp.ClientSession) -> None:
    """Call ``trace`` for each request of ``session`` from now on.

    Raises:
        UnsupportedLiveKit: the session gives a copy of its list.
    """
    trace.freeze()
    session.trace_configs.append(trace)
    if trace not in session.trace_configs:
        raise _unsupported("the trace_configs of http_session() are a copy")


def _check_header_names(job: JobContext) -> None:
    """Check that LiveKit's own headers of a request carry the ids under our names."""
    make = livekit_headers()
    if make is None:
        # LiveKit has moved it. A dial that does not name the job is told in the log.
        return
    headers = make()
    for name, value in job_identity(job)().headers().items():
        if headers.get(name) != value:
            raise _unsupported(f"its requests do not name the job by the header {name}")


def _unsupported(what: str) -> UnsupportedLiveKit:
    return UnsupportedLiveKit(
        f"livekit-agents {livekit_version} cannot be attributed: {what}. "
        "Use a release that agent-conn's tests name, or report this one"
    )
