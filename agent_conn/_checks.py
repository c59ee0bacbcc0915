"""Arguments that several parts take, checked; and what was given, for a message. Pure."""

from __future__ import annotations

import sys

from agent_conn.errors import ConfigurationError


def check_count(name: str, value: object, *, least: int = 1, most: int = sys.maxsize) -> int:
    """``value``, a whole number from ``least`` to ``most``.

    Raises:
        ConfigurationError: it is not; the message has ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        upper = "" if most == sys.maxsize else f" and at most {most}"
        raise ConfigurationError(
            f"{name} must be a whole number of at least {least}{upper}, got {told(value)}"
        )
    return value


def check_callable(name: str, value: object) -> None:
    """Check that ``value`` can be called.

    Raises:
        ConfigurationError: it cannot.
    """
    if not callable(value):
        raise ConfigurationError(f"{name} must be callable, got {told(value)}")


def told(value: object) -> str:
    """What was given: a number or None as it is, of anything else its type, never its text."""
    if isinstance(value, int) and abs(value) >= sys.maxsize:
        return "one that is too large"
    return str(value) if value is None or isinstance(value, int | float) else type(value).__name__
