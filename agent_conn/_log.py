"""The log lines of the package: an event's name, then its facts, in the message and as fields."""

from __future__ import annotations

import logging

logger: logging.Logger = logging.getLogger("agent_conn")


def log(level: int, event: str, **facts: object) -> None:
    """Log ``event``. Each fact is in the message and an attribute of the log record.

    A fact must never be a secret.
    """
    if logger.isEnabledFor(level):
        shown = ", ".join(f"{name}={value}" for name, value in facts.items())
        logger.log(level, "%s: %s", event, shown, extra=facts, stacklevel=2)
