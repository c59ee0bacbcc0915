"""What the gateway's log says of a request, with its facts in the message and in `extra`."""

from __future__ import annotations

import logging
from http import HTTPStatus

from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.sessions.connection import Connection

CLEAN_CODES = frozenset({1000, 1001})
"""Close codes that end a connection as agreed; every other end is a loss."""

MAX_SHOWN = 80
"""Characters of a path or an id that a message shows; `extra` has it whole."""

log: logging.Logger = logging.getLogger("agent_conn.gateway")


def log_opened(handshake: Handshake) -> None:
    """A request has become a websocket."""
    log.info("gateway.connection_opened: #%d %s", *_told(handshake), extra=facts_of(handshake))


def log_answer(handshake: Handshake) -> None:
    """A request was answered and is over; a refusal is a warning."""
    refused = (handshake.status or 0) >= HTTPStatus.BAD_REQUEST
    log.log(
        logging.WARNING if refused else logging.INFO,
        "gateway.request_answered: #%d %s",
        *_told(handshake),
        extra=facts_of(handshake),
    )


def log_closed(connection: Connection, seconds: float) -> None:
    """A websocket was open for `seconds`; one that was lost is a warning."""
    handshake, code = connection.handshake, connection.close_code
    log.log(
        logging.INFO if code in CLEAN_CODES else logging.WARNING,
        "gateway.connection_closed: #%d %s, %s after %.1f s",
        *_told(handshake),
        "no Close came" if code in (None, 1006) else f"code {code}",
        seconds,
        extra=facts_of(handshake)
        | {
            "close_code": code,
            "seconds": seconds,
            "messages_received": connection.messages_received,
            "messages_sent": connection.messages_sent,
            "bytes_received": connection.bytes_received,
            "bytes_sent": connection.bytes_sent,
        },
    )


def facts_of(handshake: Handshake) -> dict[str, object]:
    """Return what is known of a request, by the names that a log record carries."""
    return {
        "number": handshake.number,
        "socket": handshake.socket_number,
        "path": handshake.path,
        "model": handshake.model,
        "status": handshake.status,
        "reason": handshake.reason,
        "attribution": handshake.level.name,
        "job_id": handshake.identity.job_id,
        "room_id": handshake.identity.room_id,
        "agent_id": handshake.identity.agent_id,
        "session_id": handshake.session_id,
        "request_id": handshake.request_id,
    }


def _told(handshake: Handshake) -> tuple[int, str]:
    ids = handshake.identity
    named = (("agent", ids.agent_id), ("room", ids.room_id), ("job", ids.job_id))
    words = [
        _on_one_line(handshake.path),
        handshake.level.name,
        *(f"{name}={_on_one_line(value)}" for name, value in named if value is not None),
    ]
    if handshake.status is not None:
        words.append(f"status {handshake.status}")
    if handshake.reason is not None:
        words.append(f"({handshake.reason})")
    return handshake.number, " ".join(words)


def _on_one_line(text: str) -> str:
    return repr(text)[1:-1][:MAX_SHOWN]
