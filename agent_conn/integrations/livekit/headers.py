"""The headers that LiveKit puts on its own inference requests."""

from __future__ import annotations

import importlib
import logging
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from livekit.agents import JobContext, utils
from livekit.agents import __version__ as livekit_version

from agent_conn._identity import DEFAULT_HEADER_NAMES
from agent_conn._options import check_headers
from agent_conn.errors import ConfigurationError
from agent_conn.integrations.livekit.job import find_job, job_identity

USER_AGENT = f"LiveKit Agents/{livekit_version} (python {platform.python_version()})"
PRIORITY = "X-LiveKit-Inference-Priority"
PROVIDER = "X-LiveKit-Inference-Provider"
SESSION_ID = DEFAULT_HEADER_NAMES.session_id or ""
WORKER_TOKEN = "X-LiveKit-Worker-Token"  # noqa: S105  (a name, no secret)

logger: logging.Logger = logging.getLogger("agent_conn")


def get_inference_headers(*, inference_class: str | None = None) -> dict[str, str]:
    """The headers of one inference request; LiveKit's function of this name, built on ours.

    There is always a ``User-Agent``. In a job there are its ids too (the agent's once the room
    is connected), a fresh session id, the worker's token where ``LIVEKIT_WORKER_TOKEN`` has
    one, and the job's own ``inference_headers``. Those win over ``inference_class``, and never
    over an id, whatever case they are spelled in.
    """
    job = find_job(None)
    headers = request_headers(job, inference_class, None, {})
    if job is not None:
        headers.update(job_identity(job)().headers())
        headers[SESSION_ID] = _session_id()
    return headers


def request_headers(
    job: JobContext | None,
    inference_class: str | None,
    provider: str | None,
    own: Mapping[str, str],
) -> dict[str, str]:
    """All headers of an inference request except its ids.

    ``own`` are the caller's. A job's ``inference_headers`` win over them, since what a job says
    of itself outranks what one model was set up with, but not over the names of the ids.
    """
    headers = {"User-Agent": USER_AGENT}
    if inference_class:
        headers[PRIORITY] = inference_class
    if provider:
        headers[PROVIDER] = provider
    if job is not None and (worker_token := os.environ.get("LIVEKIT_WORKER_TOKEN")):
        headers[WORKER_TOKEN] = worker_token
    return _merged(_merged(headers, own), _job_headers(job))


def livekit_headers() -> Callable[[], Mapping[str, str]] | None:
    """LiveKit's own function, by the name that its STT calls it by, or None where it moved."""
    stt = importlib.import_module("livekit.agents.inference.stt")
    found = getattr(stt, "get_inference_headers", None)
    return cast("Callable[[], Mapping[str, str]]", found) if callable(found) else None


def _session_id() -> str:
    """A fresh one, as LiveKit makes them."""
    make = livekit_headers()
    try:
        made = None if make is None else make().get(SESSION_ID)
    except Exception as error:
        # A double of a job may lack what LiveKit asks it for.
        logger.debug("livekit_headers_failed", extra={"error": type(error).__name__})
        made = None
    return made or utils.shortuuid("inference_")


def _job_headers(job: JobContext | None) -> dict[str, str]:
    if job is None:
        return {}
    try:
        given = dict(job.inference_headers)
    except Exception as error:
        # A double of a job has none, and a header is not worth a call.
        logger.debug("inference_headers_failed", extra={"error": type(error).__name__})
        return {}
    reserved = (*DEFAULT_HEADER_NAMES.all(), "Authorization")
    return {name: value for name, value in given.items() if _fits(name, value, reserved)}


def _fits(name: str, value: str, reserved: Iterable[str]) -> bool:
    try:
        check_headers({name: value}, reserved)
    except ConfigurationError:
        logger.warning("inference_header_ignored", extra={"header": name})
        return False
    return True


def _merged(headers: Mapping[str, str], winning: Mapping[str, str]) -> dict[str, str]:
    taken = {name.lower() for name in winning}
    kept = {name: value for name, value in headers.items() if name.lower() not in taken}
    return {**kept, **winning}
