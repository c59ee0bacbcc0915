"""A line on stderr for each connection that opens and closes, from the gateway's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from agent_conn.cli.plain import plain

STYLES = {"NONE": "red", "JOB": "yellow", "ROOM": "cyan", "AGENT": "green"}

gateway_log: logging.Logger = logging.getLogger("agent_conn.gateway")


@contextmanager
def shown_activity(console: Console, *, quiet: bool) -> Iterator[None]:
    """Show on `console` what happens in a gateway; with `quiet` only warnings."""
    handler = _Lines(console)
    level, propagates = gateway_log.level, gateway_log.propagate
    gateway_log.setLevel(logging.WARNING if quiet else logging.INFO)
    gateway_log.propagate = False
    gateway_log.addHandler(handler)
    try:
        yield
    finally:
        gateway_log.removeHandler(handler)
        gateway_log.propagate = propagates
        gateway_log.setLevel(level)


class _Lines(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if (line := line_of(record)) is not None:
                # One event stays one line, however narrow the terminal.
                self._console.print(line, soft_wrap=True)
        except Exception:
            self.handleError(record)


def line_of(record: logging.LogRecord) -> Text | None:
    """Return a log record as a line for a user, or None where it does not concern one.

    Control characters and markup that a client sent are shown as text.
    """
    facts = vars(record)
    match str(record.msg).partition(":")[0]:
        case "gateway.connection_opened":
            return _line(record, "opened", _ids(facts))
        case "gateway.connection_closed":
            return _line(record, "closed", _end(facts))
        case "gateway.request_answered":
            detail = " ".join(filter(None, (_ids(facts), facts.get("reason"))))
            return _line(record, f"answered {facts['status']}", detail)
        case _ if record.levelno >= logging.WARNING:
            return Text(f"{_clock(record)} {plain(record.getMessage())} {_error(record)}".rstrip())
    return None


def _line(record: logging.LogRecord, what: str, detail: str) -> Text:
    facts = vars(record)
    level = facts["attribution"]
    asked = " ".join(plain(str(facts[name])) for name in ("path", "model") if facts[name])
    return Text.assemble(
        f"{_clock(record)} #{facts['number']} {what:<12} ",
        (f"{level:<5}", STYLES[level]),
        f" {asked} {detail}".rstrip(),
    )


def _ids(facts: dict[str, Any]) -> str:
    names = {"agent": "agent_id", "room": "room_id", "job": "job_id"}
    return " ".join(f"{name}={plain(facts[key])}" for name, key in names.items() if facts[key])


def _end(facts: dict[str, Any]) -> str:
    code = facts["close_code"] or "no Close"
    received, sent = decimal(facts["bytes_received"]), decimal(facts["bytes_sent"])
    return (
        f"{code} after {facts['seconds']:.1f} s, messages in {facts['messages_received']} "
        f"({received}), out {facts['messages_sent']} ({sent})"
    )


def _error(record: logging.LogRecord) -> str:
    # An exception's text may repeat what a peer sent.
    raised = record.exc_info[0] if record.exc_info else None
    name = str(vars(record).get("error", "")) if raised is None else raised.__name__
    return "" if name in record.getMessage() else name


def _clock(record: logging.LogRecord) -> str:
    return time.strftime("%H:%M:%S", time.localtime(record.created))
