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

_stt = importlib.import_module("livekit.agents.inference.stt")
_found_at_first: object = getattr(_stt, "get_inference_headers", None)


def get_inference_headers(*, inference_class: str | None = None) -> dict[str, str]:
    """The headers of one inference request. It can take the place of LiveKit's own function.

    There is always a ``User-Agent``. In a job there are also its ids (the agent's once the room
    is connected), a fresh session id, the worker's token if ``LIVEKIT_WORKER_TOKEN`` is set, and
    the job's own ``inference_headers``. Those win over ``inference_class``, but never over an
    id, in whatever case they are spelled.
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

    ``own`` are the caller's. A job's ``inference_headers`` win over them, because a job knows
    itself better than the settings of one model do. They do not win over the ids.
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
    found = getattr(_stt, "get_inference_headers", None)
    if found is get_inference_headers:
        # Somebody has put ours in its place.
        found = _found_at_first
    return cast("Callable[[], Mapping[str, str]]", found) if callable(found) else None


def _session_id() -> str:
    """A fresh session id, made as LiveKit makes it."""
    make = livekit_headers()
    try:
        made = None if make is None else make().get(SESSION_ID)
    except Exception as error:
        # A double of a job may lack what LiveKit asks it for.
        _log_failure("livekit_headers_failed", error)
        made = None
    return made or utils.shortuuid("inference_")


def _job_headers(job: JobContext | None) -> dict[str, str]:
    if job is None:
        return {}
    try:
        given = dict(job.inference_headers)
    except Exception as error:
        # A double of a job may have none. A missing header never fails the call.
        _log_failure("inference_headers_failed", error)
        return {}
    reserved = (*DEFAULT_HEADER_NAMES.all(), "Authorization")
    return {name: value for name, value in given.items() if _fits(name, value, reserved)}


def _fits(name: str, value: str, reserved: Iterable[str]) -> bool:
    try:
        check_headers({name: value}, reserved)
    except ConfigurationError:
        logger.warning("inference_header_ignored: %s", name, extra={"header": name})
        return False
    return True


def _log_failure(event: str, error: Exception) -> None:
    name = type(error).__name__
    logger.debug("%s: %s", event, name, extra={"error": name})


def _merged(headers: Mapping[str, str], winning: Mapping[str, str]) -> dict[str, str]:
    taken = {name.lower() for name in winning}
    kept = {name: value for name, value in headers.items() if name.lower() not in taken}
    return {**kept, **winning}
