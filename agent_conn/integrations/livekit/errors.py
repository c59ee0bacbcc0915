"""This package's errors as those that LiveKit Agents retries by."""

from __future__ import annotations

import json

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from agent_conn.errors import (
    AgentConnError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    HandshakeRejected,
)

_LASTING_CLOSES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
"""Close codes that say the same would happen again (RFC 6455, section 7.4.1)."""


def to_api_error(exc: AgentConnError) -> APIError:
    """The error of LiveKit Agents that has its retries and ``FallbackAdapter`` act rightly.

    ::

        except AgentConnError as error:
            raise to_api_error(error) from error

    ``ConnectTimeout`` becomes ``APITimeoutError``, ``HandshakeRejected`` an ``APIStatusError``
    with its status and body, anything else ``APIConnectionError``. A 401 and an exhausted quota
    are not retryable; a reset handshake and a lost connection are.

    Raises:
        ConfigurationError: ``exc`` is no error of this package.
    """
    if not isinstance(exc, AgentConnError):
        raise ConfigurationError("exc is no AgentConnError")
    message = str(exc)
    if isinstance(exc, HandshakeRejected):
        return APIStatusError(
            message,
            status_code=exc.status,
            body=_body(exc.body),
            retryable=exc.retryable and exc.quota is None,
        )
    if isinstance(exc, ConnectTimeout):
        return APITimeoutError(message, retryable=exc.retryable)
    if isinstance(exc, ConnectionLost):
        return APIConnectionError(message, retryable=exc.code not in _LASTING_CLOSES)
    return APIConnectionError(message, retryable=isinstance(exc, ConnectError) and exc.retryable)


def _body(body: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body or None
