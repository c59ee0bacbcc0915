"""Turns this package's errors into those that LiveKit Agents retries by."""

from __future__ import annotations

import json

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from agent_conn._options import kind
from agent_conn._reconnect.retry import classify_failure
from agent_conn.errors import (
    AgentConnError,
    ConfigurationError,
    ConnectTimeout,
    HandshakeRejected,
)

REQUEST_ID = "x-livekit-request-id"
"""The header by which LiveKit's gateway names a request in its logs, in a record's spelling."""


class UnsupportedLiveKit(AgentConnError, RuntimeError):
    """This release of LiveKit Agents lacks something that the integration needs.

    The message names it.
    """


def to_api_error(exc: AgentConnError) -> APIError:
    """The error by which LiveKit's retries and ``FallbackAdapter`` do the right thing.

    ::

        except AgentConnError as error:
            raise to_api_error(error) from error

    ``ConnectTimeout`` becomes ``APITimeoutError``, ``HandshakeRejected`` an ``APIStatusError``
    with its status, body and request id, anything else ``APIConnectionError``. It is retryable
    where ``classify_failure`` says that another dial may help.

    Raises:
        ConfigurationError: ``exc`` is not an error of this package.
    """
    if not isinstance(exc, AgentConnError):
        raise ConfigurationError(f"exc must be an AgentConnError, got {kind(exc)}")
    message, retryable = str(exc), classify_failure(exc)
    if isinstance(exc, HandshakeRejected):
        rejected = APIStatusError(
            message,
            status_code=exc.status,
            request_id=exc.headers.get(REQUEST_ID),
            body=_body(exc.body),
        )
        # LiveKit itself takes every status of 400 to 499 but three as final.
        rejected.retryable = retryable
        return rejected
    if isinstance(exc, ConnectTimeout):
        return APITimeoutError(message, retryable=retryable)
    return APIConnectionError(message, retryable=retryable)


def _body(body: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body or None
