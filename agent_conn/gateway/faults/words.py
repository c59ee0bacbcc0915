"""Faults in a few words, as a person names them."""

from __future__ import annotations

import re

from agent_conn.gateway.faults.kinds import (
    AcceptAndClose,
    CloseWith,
    ConcurrencyLimit,
    DropAfter,
    Fault,
    IdleTimeout,
    Redirect,
    Reject,
    Reset,
    SessionLimit,
)

BEFORE_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
PHASES = {"accept": " at accept", "tls": " in TLS", "handshake": " in the handshake", "open": ""}


def kind_in_words(kind: type[Fault]) -> str:
    """Return a kind of fault in words, such as ``stall in handshake``."""
    words = BEFORE_CAPITAL.sub(" ", kind.__name__)
    return words.lower().replace("tls", "TLS").replace("web socket", "websocket")


def in_words(fault: Fault) -> str:
    """Return what a fault does, such as ``reject with 429``."""
    return f"{kind_in_words(type(fault))}{_detail(fault)}"


def _detail(fault: Fault) -> str:
    detail = ""
    match fault:
        case Reject(status=number) | Redirect(status=number) | AcceptAndClose(code=number):
            detail = f" with {number}"
        case CloseWith(code=number):
            detail = f" {number}"
        case Reset(phase=phase):
            detail = PHASES[phase]
        case DropAfter(messages=count):
            detail = f" {count} message{'' if count == 1 else 's'}"
        case IdleTimeout(seconds=seconds) | SessionLimit(seconds=seconds):
            detail = f" of {seconds:g} s"
        case ConcurrencyLimit(limit=limit):
            detail = f" of {limit}"
    return detail
