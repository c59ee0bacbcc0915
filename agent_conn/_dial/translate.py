"""What went wrong while a connection opened, in this package's own errors.

aiohttp's exceptions hold request headers, cookies and the URL, so none of them is chained
and none of their text is used. Each is told apart by how far the attempt had come, then by
its class, since aiohttp uses one class for several failures.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from agent_conn._secrets import Secrets
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

MAX_REASON = 200
"""Characters of a reason that a message shows."""

_RETRYABLE_STATUSES = frozenset({408, 429})
_QUOTA_FIELDS = ("hint", "quota_type", "category", "remaining_limit", "documentation_url")
_TOO_LONG = re.compile(r"Got more than (\d+) bytes")
_QUOTA_HEADER = "x-livekit-inference-"
_REASON_FIELDS = ("message", "error", "detail", "reason", "error_description", "hint", "title")


def dial_failed(error: Exception, origin: object) -> ConnectError:
    """The error for a connection to ``origin`` that was not made, TLS and proxy included."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return DialFailed(
            f"{origin}: the proxy answered {status_text(error.status)}",
            retryable=is_retryable_status(error.status),
        )
    failure = DialFailed(
        f"{origin}: {_dial_text(error)}", retryable=not _is_certificate_failure(error)
    )
    failure.errno = _errno(error)
    failure.certificate_refused = _is_certificate_failure(error)
    return failure


def handshake_failed(error: Exception, origin: object) -> ConnectError:
    """The error for a request to ``origin`` that got no readable answer."""
    if isinstance(error, aiohttp.ClientResponseError):
        too_long = _TOO_LONG.match(error.message)
        if too_long is None:
            return HandshakeInvalid("the peer's answer is not HTTP")
        return HandshakeInvalid(
            f"the peer's answer has a line or header of more than {too_long[1]} bytes: raise "
            "max_line_size and max_field_size of the session"
        )
    return DialFailed(f"{origin} hung up during the handshake", phase=Phase.HANDSHAKE)


def rejected(
    status: int, headers: Mapping[str, str], body: bytes, secrets: Secrets
) -> HandshakeRejected:
    """The error for an HTTP error answer. A text that repeats a secret is withheld whole."""
    text = body[:MAX_BODY].decode("utf-8", "replace")
    # Looked at before it is cut, so that a secret cut in two at the end is still found.
    withheld = secrets.repeated_in(body.decode("utf-8", "replace"))
    shown = {name: value for name, value in headers.items() if not secrets.repeated_in(value)}
    message = f"the gateway answered {status_text(status)}"
    if withheld:
        message += " (its text is withheld, since it repeats a secret that was sent)"
        text = ""
    elif reason := read_reason(text):
        message += f": {reason}"
    return HandshakeRejected(
        message,
        status=status,
        body=text,
        headers=shown_headers(headers, secrets),
        quota=read_quota(shown, text) if status == HTTPStatus.TOO_MANY_REQUESTS else None,
        date=_read_date(headers.get("Date", "")),
        retryable=is_retryable_status(status),
        retry_after=read_retry_after(headers),
    )


def shown_headers(headers: Mapping[str, str], secrets: Secrets) -> dict[str, str]:
    """The headers of an answer without cookies and without what repeats a secret.

    Their names are in lower case, since aiohttp respells those that it knows.
    """
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() != "set-cookie" and not secrets.repeated_in(value)
    }


def read_reason(text: str) -> str:
    """Why the peer refused, in one line of ``text``, or nothing where it does not say.

    It is a field of a JSON object, or the first line of what is not HTML.
    """
    parsed = _read_json(text)
    for name in _REASON_FIELDS:
        found = parsed.get(name)
        if isinstance(found, dict):
            found = found.get("message")
        if isinstance(found, str) and found.strip():
            return one_line(found)
    if parsed or text.lstrip()[:1] in {"<", "{", "["}:
        return ""
    return one_line(text)


def one_line(text: str) -> str:
    """The first line of ``text`` that is not blank, without control characters, cut."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(each for each in line if each.isprintable())[:MAX_REASON]


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


def read_quota(headers: Mapping[str, str], body: str) -> Quota | None:
    """What a 429 says of a quota, or None where it says nothing."""
    limits = {
        name[len(_QUOTA_HEADER) :]: value
        for name, value in headers.items()
        if name.lower().startswith(_QUOTA_HEADER)
    }
    told = _read_json(body)
    texts = {name: str(told[name]) for name in _QUOTA_FIELDS if told.get(name) is not None}
    return Quota(**texts, limits=limits) if texts or limits else None


def _read_json(text: str) -> dict[str, object]:
    """The JSON object that ``text`` is, or an empty one."""
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _read_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else None


def status_text(status: int) -> str:
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
    if (failed := _resolving_error(error)) is not None:
        return f"DNS: the host's name could not be resolved: {failed}"
    if isinstance(error, aiohttp.ClientSSLError):
        reason = error.os_error.reason if isinstance(error.os_error, ssl.SSLError) else None
        return f"TLS: {reason or type(error).__name__}"
    if not isinstance(error, OSError | aiohttp.ClientError):
        return f"aiohttp could not make the request: {type(error).__name__}"
    where = "proxy" if isinstance(error, aiohttp.ClientProxyConnectionError) else "TCP"
    number = _errno(error)
    return f"{where}: {os.strerror(number) if number else type(error).__name__}"


def _errno(error: Exception) -> int | None:
    """The system's number for a failed connect; OpenSSL's and getaddrinfo's are others."""
    if isinstance(error, aiohttp.ClientSSLError) or _resolving_error(error) is not None:
        return None
    return error.errno if isinstance(error, OSError) else None


def _resolving_error(error: Exception) -> str | None:
    """What the resolver said, in words, where it failed; else None."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, socket.gaierror):
        return cause.strerror or "it has no address"
    return "it has no address" if isinstance(error, aiohttp.ClientConnectorDNSError) else None
