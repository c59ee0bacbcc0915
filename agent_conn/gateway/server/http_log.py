"""The logger of the gateway's HTTP server, which does not repeat what a peer sent."""

from __future__ import annotations

import logging

from aiohttp.http import HttpProcessingError

http_logger: logging.Logger = logging.getLogger("agent_conn.gateway.http")


def _tell_without_bytes(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    # Its text quotes the line that could not be read, which may be a credential's.
    kind = record.error = type(error).__name__
    record.msg, record.args = "gateway.bad_request: %s", (kind,)
    record.exc_info = None
    record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return http_logger.isEnabledFor(logging.INFO)


http_logger.addFilter(_tell_without_bytes)
