"""Headers for a page: without credentials, those that only their look gives away included."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent_conn.gateway.server.handshakes import REDACTED

SECRET_WORDS = re.compile(
    r"auth|bearer|cookie|credential|passw|secret|signature|token|api[-_]?key", re.IGNORECASE
)
SECRET_VALUE = re.compile(r"(?:bearer|basic)\s", re.IGNORECASE)
# As long as a name of a subprotocol is likely to be; some clients send a token as one.
LONGEST_SUBPROTOCOL = 40


def shown_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the headers with every credential's value replaced.

    A credential is the value of a header whose name says so, a value that begins as one, the
    query of a `Referer`, and a subprotocol that is no name.
    """
    return [(name, _shown(name.lower(), value)) for name, value in headers.items()]


def _shown(name: str, value: str) -> str:
    if name == "sec-websocket-protocol":
        asked = (part.strip() for part in value.split(","))
        return ", ".join(REDACTED if _is_secret_subprotocol(part) else part for part in asked)
    if SECRET_WORDS.search(name) or SECRET_VALUE.match(value):
        return REDACTED
    address, mark, _ = value.partition("?")
    return f"{address}?{REDACTED}" if name == "referer" and mark else value


def _is_secret_subprotocol(name: str) -> bool:
    return len(name) > LONGEST_SUBPROTOCOL or SECRET_WORDS.search(name) is not None
