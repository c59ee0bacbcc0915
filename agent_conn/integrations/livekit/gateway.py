"""Connections to LiveKit's inference gateway, as LiveKit itself would open them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TypedDict, Unpack

import aiohttp
from livekit import api
from livekit.agents import JobContext
from livekit.agents.utils import http_context
from yarl import URL

from agent_conn._connection import InferenceConnection
from agent_conn._dial.open_hook import OpenHook
from agent_conn._identity import AttributionLevel
from agent_conn._options import TlsSetting, TokenSource, check_seconds, check_url, kind
from agent_conn._record import ConnectionObserver, TraceHeaders
from agent_conn._usage import UsageMeter
from agent_conn.errors import ConfigurationError
from agent_conn.integrations.livekit.headers import request_headers
from agent_conn.integrations.livekit.job import find_job, job_identity, room_connected

_GATEWAY = "https://agent-gateway.livekit.cloud/v1"
_STAGING_GATEWAY = "https://agent-gateway.staging.livekit.cloud/v1"


class ConnectionOptions(TypedDict, total=False):
    """The options of ``InferenceConnection`` that ``inference_connection`` takes too."""

    on_open: OpenHook | None
    require: AttributionLevel
    open_timeout: float
    close_timeout: float
    heartbeat: float | None
    network_timeout: float | None
    protocols: Iterable[str]
    compress: bool
    max_msg_size: int
    ssl: TlsSetting
    server_hostname: str | None
    proxy: str | URL | None
    proxy_headers: Mapping[str, str] | None
    allow_insecure: bool
    usage: UsageMeter | None
    observer: ConnectionObserver | None
    trace_headers: TraceHeaders | None


def default_base_url() -> str:
    """The gateway that LiveKit would use: ``LIVEKIT_INFERENCE_URL``, or its cloud's."""
    if url := os.environ.get("LIVEKIT_INFERENCE_URL"):
        return url
    staging = ".staging.livekit.cloud" in os.environ.get("LIVEKIT_URL", "")
    return _STAGING_GATEWAY if staging else _GATEWAY


def inference_token(
    api_key: str | None = None, api_secret: str | None = None, ttl: float = 600.0
) -> Callable[[], str]:
    """Mints an inference token for each dial. A connection takes it as ``token=``.

    Args:
        api_key: by default ``LIVEKIT_INFERENCE_API_KEY``, else ``LIVEKIT_API_KEY``.
        api_secret: by default ``LIVEKIT_INFERENCE_API_SECRET``, else ``LIVEKIT_API_SECRET``.
        ttl: seconds that a token is valid.

    Raises:
        ConfigurationError: the key or the secret is missing, or ``ttl`` is wrong.
    """
    check_seconds("ttl", ttl)
    key = api_key or _from_environment("API_KEY")
    secret = api_secret or _from_environment("API_SECRET")
    missing = "api_key" if not key else "api_secret" if not secret else None
    if missing is not None:
        # Some loggers show the locals of a traceback's frames.
        del api_key, api_secret, key, secret
        name = missing.upper()
        raise ConfigurationError(
            f"{missing} is missing: pass {missing}=, or set LIVEKIT_INFERENCE_{name} "
            f"or LIVEKIT_{name} in the environment"
        )

    def mint() -> str:
        token = api.AccessToken(key, secret).with_identity("agent")
        token = token.with_inference_grants(api.InferenceGrants(perform=True))
        return token.with_ttl(timedelta(seconds=ttl)).to_jwt()

    return mint


def inference_connection(
    path: str,
    *,
    model: str,
    ctx: JobContext | None = None,
    session: aiohttp.ClientSession | None = None,
    connect_wait: float | None = 2.0,
    base_url: str | None = None,
    token: TokenSource | None = None,
    api_key: str | None = None,
    api_secret: str | None = None,
    inference_class: str | None = None,
    provider: str | None = None,
    headers: Mapping[str, str] | None = None,
    **options: Unpack[ConnectionOptions],
) -> InferenceConnection:
    """An ``InferenceConnection`` for plugins, which is wired to a job. Single use.

    It waits for the job's room and sends the job's ids. For the rest it dials as LiveKit's own
    classes do, with their base URL, ``User-Agent``, token, worker token and the job's own
    ``inference_headers``. Outside a job it needs ``session``, and sends no ids.

    Args:
        path: below the base URL, such as ``"stt"``.
        model: is sent in the query.
        ctx: by default the job that this code runs in.
        session: by default the one that LiveKit keeps for the job, with its proxy and TLS.
        connect_wait: seconds to wait for the room; 0 only looks, None waits for ever. A fake
            job does not wait, because nobody connects its room.
        base_url: by default ``LIVEKIT_INFERENCE_URL``, else LiveKit's gateway.
        token: is used instead of what ``api_key`` and ``api_secret`` mint.
        api_key: as for ``inference_token``.
        api_secret: as for ``inference_token``.
        inference_class: ``"priority"``, ``"standard"`` or ``"low"``.
        provider: whose model of this name to use, such as ``"azure"``; by default the gateway
            chooses.
        headers: are sent too. The job's ``inference_headers`` win over them.
        options: those of ``InferenceConnection``.

    Raises:
        ConfigurationError: an argument is wrong. The message names it.
    """
    job = find_job(ctx)
    if provider is not None:
        _check_text("provider", provider)
    return InferenceConnection(
        session if session is not None else _job_session(),
        _endpoint(base_url, path, model),
        identity=job_identity(job) if job is not None else None,
        room_connected=room_connected(job.room) if job is not None else None,
        connect_wait=0 if is_fake(job) else connect_wait,
        token=token if token is not None else inference_token(api_key, api_secret),
        headers=request_headers(job, inference_class, provider, headers or {}),
        **options,
    )


def is_fake(job: object) -> bool:
    """Whether ``job`` belongs to a console or a test. Nobody connects its room."""
    return isinstance(job, JobContext) and job.is_fake_job()


def _endpoint(base_url: str | None, path: str, model: str) -> URL:
    base = check_url(base_url if base_url is not None else default_base_url(), "base_url")
    _check_text("path", path)
    _check_text("model", model)
    return base.joinpath(*path.strip("/").split("/")).with_query(model=model)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip("/ "):
        got = "a blank str" if isinstance(value, str) else kind(value)
        raise ConfigurationError(f"{name} must be a str that is not blank, got {got}")


def _job_session() -> aiohttp.ClientSession:
    try:
        return http_context.http_session()
    except RuntimeError:
        pass
    raise ConfigurationError("session must be given outside a job, got None: pass session=")


def _from_environment(name: str) -> str:
    return os.environ.get(f"LIVEKIT_INFERENCE_{name}", os.environ.get(f"LIVEKIT_{name}", ""))
