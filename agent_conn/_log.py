"""The log lines of the package: an event's name, then its facts, in the message and as fields."""

from __future__ import annotations

import logging

logger: logging.Logger = logging.getLogger("agent_conn")


def is_logged(level: int) -> bool:
    """Whether anything listens to ``level``, for facts that cost something to tell."""
    return logger.isEnabledFor(level)


def log(level: int, event: str, **facts: object) -> None:
    """Log ``event``. Each fact is in the message and an attribute of the log record.

    A fact must never be a secret.
    """
    if is_logged(level):
        shown = ", ".join(f"{name}={value}" for name, value in facts.items())
        logger.log(level, "%s: %s", event, shown, extra=facts, stacklevel=2)
