"""Which headers the gateway keeps by value: an allow-list, since secrets have many names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

from agent_conn._identity import HeaderNames, is_header_name
from agent_conn.errors import ConfigurationError

REDACTED = "<redacted>"
SHOWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "baggage",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "origin",
        "pragma",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-livekit-agent-id",
        "x-livekit-inference-priority",
        "x-livekit-inference-provider",
        "x-livekit-job-id",
        "x-livekit-room-id",
        "x-livekit-session-id",
        "x-request-id",
    }
)
"""What is shown by value, in lower case; of every other header the name alone."""

SECRET_WORDS = re.compile(
    r"auth|bearer|cookie|credential|passw|secret|signature|token|api[-_]?key", re.IGNORECASE
)
SECRET_VALUE = re.compile(r"(?:bearer|basic)\s", re.IGNORECASE)
# As long as a name of a subprotocol is likely to be; some clients send a token as one.
LONGEST_SUBPROTOCOL = 40


class Redaction:
    """Shows the headers of the allow-list, those that carry ids, and `shown`.

    Raises:
        ConfigurationError: `shown` is not header names.
    """

    def __init__(self, names: HeaderNames, shown: Iterable[str]) -> None:
        shown = (shown,) if isinstance(shown, str) else tuple(shown)
        for name in shown:
            if not is_header_name(name):
                raise ConfigurationError(f"shown_headers must be header names, got {name!r:.80}")
        named = (name.lower() for name in (*names.all(), *shown) if name)
        self._shown = SHOWN_HEADERS | set(named)

    def headers(self, headers: Mapping[str, str]) -> CIMultiDict[str]:
        """Return a copy in which the value of every other header is `<redacted>`."""
        return CIMultiDict(
            # aiohttp 3.14.0 hands on the space after a value, which is no part of it.
            (name, self._value(name.lower(), value.rstrip(" \t")))
            for name, value in headers.items()
        )

    def _value(self, name: str, value: str) -> str:
        if name == "sec-websocket-protocol":
            return ", ".join(shown_subprotocols(value))
        return value if name in self._shown and not SECRET_VALUE.match(value) else REDACTED


def shown_subprotocols(value: str) -> tuple[str, ...]:
    """Return the subprotocols that a header asks for; one that may be a token is `<redacted>`."""
    names = (name.strip() for name in value.split(","))
    return tuple(REDACTED if _may_be_secret(name) else name for name in names if name)


def _may_be_secret(name: str) -> bool:
    return len(name) > LONGEST_SUBPROTOCOL or SECRET_WORDS.search(name) is not None
