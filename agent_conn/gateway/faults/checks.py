"""What a fault may be made of, so that a wrong one fails where it is made and not where it strikes.

Each check raises ConfigurationError, which names the field and shows a wrong number, never a text.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent_conn._checks import check_count
from agent_conn._identity import is_header_name, is_printable_ascii
from agent_conn.errors import ConfigurationError

MAX_REASON = 123
"""Bytes of a Close frame's reason: a control frame carries 125, two of which are the code."""
UNSENDABLE_CODES = frozenset({1005, 1006, 1015})
"""Codes that RFC 6455, section 7.4.1 keeps off the wire."""


def check_close_code(code: object) -> None:
    """A code that a Close frame can carry."""
    if check_count("code", code, least=1000, most=4999) in UNSENDABLE_CODES:
        raise ConfigurationError(f"code must not be 1005, 1006 or 1015, got {code}")


def check_wire_code(code: object) -> None:
    """What a Close frame has room for; codes that may not be sent are faults too."""
    check_count("code", code, least=0, most=0xFFFF)


def check_reason(reason: object) -> None:
    """A reason that a Close frame can carry."""
    if not isinstance(reason, str) or len(_utf8("reason", reason)) > MAX_REASON:
        raise ConfigurationError(f"reason must be a str of at most {MAX_REASON} bytes in UTF-8")


def check_header_value(name: str, value: object) -> None:
    """A value that can stand in an HTTP header."""
    if not isinstance(value, str) or not is_printable_ascii(value):
        raise ConfigurationError(f"{name} must be a str of printable ASCII")


def check_headers(headers: object) -> None:
    """Headers that an answer can carry."""
    if not isinstance(headers, Mapping) or not all(map(is_header_name, headers)):
        raise ConfigurationError("headers must map HTTP field names to str")
    for name, value in headers.items():
        check_header_value(f"headers: {name}", value)


def check_bytes(name: str, data: object) -> None:
    """Bytes to answer."""
    if not isinstance(data, bytes):
        raise ConfigurationError(f"{name} must be bytes, got {type(data).__name__}")


def _utf8(name: str, text: str) -> bytes:
    encoded = text.encode("utf-8", "replace")
    if encoded.decode() != text:
        raise ConfigurationError(f"{name} must be text that UTF-8 can carry")
    return encoded
