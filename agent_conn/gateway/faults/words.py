"""Faults in a few words, as a person names them."""

from __future__ import annotations

import re

from agent_conn.gateway.faults.kinds import (
    AcceptAndClose,
    CloseWith,
    ConcurrencyLimit,
    DropAfter,
    Fault,
    GoSilent,
    IdleTimeout,
    Redirect,
    Reject,
    Reset,
    SessionLimit,
    StopReading,
)

BEFORE_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
PHASES = {"accept": " at accept", "tls": " in TLS", "handshake": " in the handshake", "open": ""}


def kind_in_words(kind: type[Fault]) -> str:
    """Return a kind of fault in words, such as ``stall in handshake``."""
    words = BEFORE_CAPITAL.sub(" ", kind.__name__)
    return words.lower().replace("tls", "TLS").replace("web socket", "websocket")


def in_words(fault: Fault) -> str:
    """Return what a fault does, such as ``reject with 429``."""
    if isinstance(fault, DropAfter):
        return f"{'reset' if fault.reset else 'drop'}{_after(fault.messages)}"
    return f"{kind_in_words(type(fault))}{_detail(fault)}"


def _detail(fault: Fault) -> str:
    detail = ""
    match fault:
        case Reject(status=number) | Redirect(status=number) | AcceptAndClose(code=number):
            detail = f" with {number}"
        case CloseWith(code=number, after_messages=count):
            detail = f" {number}{_after(count)}"
        case GoSilent(after_messages=count) | StopReading(after_messages=count):
            detail = _after(count)
        case Reset(phase=phase):
            detail = PHASES[phase]
        case IdleTimeout(seconds=seconds) | SessionLimit(seconds=seconds):
            detail = f" of {seconds:g} s"
        case ConcurrencyLimit(limit=limit):
            detail = f" of {limit}"
    return detail


def _after(messages: int) -> str:
    return f" after {messages} message{'' if messages == 1 else 's'}" if messages else ""
