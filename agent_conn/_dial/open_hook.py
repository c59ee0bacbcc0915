"""Run ``on_open`` on a websocket that nobody else has yet."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import aiohttp

from agent_conn._dial.close import OpenWebSocket
from agent_conn._dial.drop import is_drop
from agent_conn._options import kind
from agent_conn.errors import ConfigurationError, OpenHookFailed

OpenHook = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]]
"""Awaited with the websocket before anyone else has it, as part of opening it."""


async def run_on_open(hook: OpenHook, opened: OpenWebSocket) -> None:
    """Await ``hook`` with the websocket.

    Raises:
        OpenHookFailed: it raised; retryable where the connection dropped under it.
        ConfigurationError: it is not async.
    """
    ws = opened.ws
    try:
        opening: object = hook(ws)
        if inspect.isawaitable(opening):
            await opening
            return
    except Exception as error:
        loss = opened.loss()
        failure = OpenHookFailed(
            f"on_open raised {type(error).__name__}",
            retryable=ws.closed or is_drop(error, closed=ws.closed),
        )
        failure.loss = loss
        raise failure from error
    raise ConfigurationError(f"on_open must be async, got a function that returned {kind(opening)}")
