"""Numbers that a caller or a peer gives, checked. Pure."""

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
            f"{name} must be a whole number of at least {least}{upper}, got {_told(value)}"
        )
    return value


def check_number(
    name: str, value: object, *, least: float = 0.0, most: float = sys.float_info.max
) -> float:
    """``value``, a finite number from ``least`` to ``most``.

    Raises:
        ConfigurationError: it is not; the message has ``name``.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not max(least, -sys.float_info.max) <= value <= most:  # type: ignore[operator]
        upper = "" if most == sys.float_info.max else f" and at most {most:g}"
        lower = "" if least < 0 else f" of at least {least:g}"
        raise ConfigurationError(
            f"{name} must be a finite number{lower}{upper}, got {_told(value)}"
        )
    return float(value)  # type: ignore[arg-type]


def _told(value: object) -> str:
    small = isinstance(value, int) and abs(value) < sys.maxsize
    return str(value) if small or isinstance(value, float) else type(value).__name__
