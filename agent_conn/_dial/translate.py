"""What aiohttp raises while a connection opens, told in this package's own errors.

aiohttp's exceptions hold request headers, cookies and the URL, so none of them is chained
and none of their text is used. Each is told apart by how far the attempt had come, then by
its class, since aiohttp uses one class for several failures.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from agent_conn.errors import (
    ConnectError,
    DialFailed,
    HandshakeInvalid,
    HandshakeRejected,
    Phase,
    Quota,
)

MAX_BODY = 2048
"""Bytes of a rejection's body that are kept."""

_RETRYABLE_STATUSES = frozenset({408, 429})
_QUOTA_FIELDS = ("hint", "quota_type", "category", "remaining_limit", "documentation_url")
_QUOTA_HEADER = "x-livekit-inference-"
_SHORTEST_SECRET = 8
_REDACTED = b"[redacted]"


def from_exception(
    error: Exception, origin: object, *, connected: bool, answered: bool
) -> ConnectError:
    """The error to raise for ``error``.

    ``origin``: what was dialled. ``connected``: TCP and TLS were up. ``answered``: an HTTP
    answer had come.
    """
    if answered or (connected and isinstance(error, aiohttp.ClientResponseError)):
        return HandshakeInvalid("the peer's answer is no websocket handshake")
    if connected:
        text = f"{origin} hung up during the handshake"
        return DialFailed(text, phase=Phase.HANDSHAKE)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return DialFailed(
            f"{origin}: the proxy answered {_status_text(error.status)}",
            retryable=is_retryable_status(error.status),
        )
    text = f"{origin}: {_dial_text(error)}"
    failure = DialFailed(text, retryable=not _is_certificate_failure(error))
    failure.errno = _errno(error)
    return failure


def rejected(
    status: int, headers: Mapping[str, str], body: bytes, secrets: Iterable[str]
) -> HandshakeRejected:
    """The error for an HTTP error answer; ``secrets`` are cut out of the body."""
    told = redact(body, secrets)
    return HandshakeRejected(
        f"the gateway answered {_status_text(status)}",
        status=status,
        body=told[:MAX_BODY],
        quota=read_quota(headers, told) if status == HTTPStatus.TOO_MANY_REQUESTS else None,
        date=_read_date(headers.get("Date", "")),
        retryable=is_retryable_status(status),
        retry_after=read_retry_after(headers),
    )


def is_retryable_status(status: int) -> bool:
    """Whether the same request may be answered otherwise later: 408, 429 and 5xx."""
    return status in _RETRYABLE_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of ``Retry-After`` (RFC 9110, section 10.2.3), or None where unreadable.

    A date is counted from the answer's own ``Date``, so that no clock here matters.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    until, now = _read_date(text), _read_date(headers.get("Date", ""))
    if until is None or now is None:
        return None
    return max(0.0, (until - now).total_seconds())


def read_quota(headers: Mapping[str, str], body: bytes) -> Quota | None:
    """What a 429 says of a quota, or None where it says nothing."""
    limits = {
        name[len(_QUOTA_HEADER) :]: value
        for name, value in headers.items()
        if name.lower().startswith(_QUOTA_HEADER)
    }
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    told = parsed if isinstance(parsed, dict) else {}
    texts = {name: str(told[name]) for name in _QUOTA_FIELDS if told.get(name) is not None}
    return Quota(**texts, limits=limits) if texts or limits else None


def redact(body: bytes, secrets: Iterable[str]) -> bytes:
    """``body`` without any of ``secrets``, which some servers echo."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            body = body.replace(secret.encode("utf-8", "surrogateescape"), _REDACTED)
    return body


def _read_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else None


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _is_certificate_failure(error: Exception) -> bool:
    return isinstance(
        error, aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch
    )


def _dial_text(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        verdict = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else None
        return f"TLS: the peer's certificate was refused: {verdict or type(cause).__name__}"
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return "TLS: the peer's certificate has another fingerprint"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "DNS: the host's name could not be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        reason = error.os_error.reason if isinstance(error.os_error, ssl.SSLError) else None
        return f"TLS: {reason or type(error).__name__}"
    where = "proxy" if isinstance(error, aiohttp.ClientProxyConnectionError) else "TCP"
    number = _errno(error)
    return f"{where}: {os.strerror(number) if number else type(error).__name__}"


def _errno(error: Exception) -> int | None:
    """The system's number for a failed connect; OpenSSL's and getaddrinfo's are others."""
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorDNSError):
        return None
    return error.errno if isinstance(error, OSError) else None
