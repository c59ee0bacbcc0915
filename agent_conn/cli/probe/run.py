"""Probe a gateway, one connection after another."""

from __future__ import annotations

import secrets as random_secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from http import HTTPStatus

from yarl import URL

from agent_conn.cli.probe.dial import Dial, attempt
from agent_conn.cli.probe.findings import Attempt, Findings
from agent_conn.gateway import Gateway


async def probe_all(dial: Dial, findings: Findings, on_attempt: Callable[[int], None]) -> None:
    """Open `findings.requested` connections, and note each in `findings`.

    It ends early after an answer that would be the same again, and after a 429.

    Raises:
        ConfigurationError: `dial` is wrong, nothing was sent.
    """
    while len(findings.attempts) < findings.requested:
        findings.attempts.append(await attempt(dial))
        on_attempt(len(findings.attempts))
        if _is_final(findings.attempts[-1]):
            return


async def start_gateway(stack: AsyncExitStack, make_dial: Callable[..., Dial]) -> Dial:
    """Start a gateway with TLS and a token of its own for `stack`; returns how to dial it.

    Raises:
        ImportError: trustme is not installed.
        OSError: this machine has no loopback address to listen on.
    """
    token = random_secrets.token_urlsafe()
    gateway = await stack.enter_async_context(Gateway(tls=True, token=token))
    dial = make_dial(
        url=URL(gateway.url("/v1/stt")), token=lambda: token, context=gateway.client_ssl
    )
    dial.secrets.add(token)
    return dial


def _is_final(made: Attempt) -> bool:
    if made.failure is None:
        return False
    error, refusal = made.failure.error, made.failure.refusal
    limited = refusal is not None and refusal.status == HTTPStatus.TOO_MANY_REQUESTS
    return limited or not error.retryable
