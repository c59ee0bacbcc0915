"""Numbers that a caller or a peer gives, checked. Pure."""

from __future__ import annotations

import sys

from agent_conn._checks import told
from agent_conn.errors import ConfigurationError


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
        raise ConfigurationError(f"{name} must be a finite number{lower}{upper}, got {told(value)}")
    return float(value)  # type: ignore[arg-type]
