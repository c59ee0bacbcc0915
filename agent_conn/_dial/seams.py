"""What a dial leans on in aiohttp beyond its documentation, and whether this aiohttp has it.

Without one of these a dial could go out without the ids, or never be told its end.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import aiohttp
from aiohttp import tracing
from aiohttp.connector import Connection

from agent_conn._dial.session_view import SessionView
from agent_conn._dial.websocket import InferenceWebSocket
from agent_conn.errors import DialFailed

_ATTRIBUTES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (aiohttp.TCPConnector, ("clear_dns_cache",)),
    (aiohttp.ClientRequest, ("session",)),
    (aiohttp.ClientResponse, ("connection",)),
    (Connection, ("transport", "protocol", "release")),
    (
        tracing.Trace,
        (
            "send_connection_queued_start",
            "send_connection_queued_end",
            "send_connection_create_start",
            "send_connection_create_end",
        ),
    ),
)


def check_seams() -> None:
    """Look, once in a process, whether aiohttp has what a dial calls.

    Raises:
        DialFailed: it lacks something, which the message names.
    """
    if missing := missing_seams():
        raise _unsupported(", ".join(missing))


async def check_opened(
    ws: aiohttp.ClientWebSocketResponse, close_timeout: float, *, guarded: bool
) -> None:
    """Look whether aiohttp opened ``ws`` through the guard, and as the class that it was given.

    Raises:
        DialFailed: it did not, which the message names; ``ws`` is closed.
    """
    if guarded and isinstance(ws, InferenceWebSocket):
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(close_timeout):
            await ws.close()
    by_request = "ClientSession.ws_connect by way of ClientSession.request"
    raise _unsupported("ClientSession._ws_response_class" if guarded else by_request)


@cache
def missing_seams() -> tuple[str, ...]:
    """The names of what this aiohttp lacks."""
    found = {
        "ClientSession.request(middlewares=)": _request_takes_middlewares(),
        "BaseConnector.connect(req, traces, timeout)": _parameters(aiohttp.BaseConnector.connect)
        == ["self", "req", "traces", "timeout"],
        "ClientWebSocketResponse(reader, ...)": _parameters(aiohttp.ClientWebSocketResponse)[0]
        == "reader",
    }
    for owner, names in _ATTRIBUTES:
        found |= {f"{owner.__name__}.{name}": hasattr(owner, name) for name in names}
    return tuple(name for name, is_there in found.items() if not is_there)


def _request_takes_middlewares() -> bool:
    session = SessionView.__new__(SessionView)
    try:
        # It checks its arguments at once, and does nothing before it is awaited.
        aiohttp.ClientSession.request(
            session, "GET", "", middlewares=(), allow_redirects=False, timeout=None
        ).close()
    except TypeError:
        return False
    return True


def _parameters(of: Callable[..., object]) -> list[str]:
    return list(inspect.signature(of).parameters)


def _unsupported(missing: str) -> DialFailed:
    return DialFailed(
        f"aiohttp {aiohttp.__version__} lacks what agent_conn dials by: {missing}. Install the "
        "newest agent_conn, or an older aiohttp",
        retryable=False,
    )
