"""One task reads an open connection and another writes it, until their session is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import aiohttp

from agent_conn import ConnectionLost, InferenceConnection

T = TypeVar("T")

DRAIN_SECONDS = 5.0
"""How long the gateway may take over what it still owes once the session is closed."""


class GatewayError(Exception):
    """The gateway sent an `error` message, or something that is not a message.

    `code` is the gateway's own; None where it gave none.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


async def receive(connection: InferenceConnection) -> dict[str, Any] | None:
    """Return the gateway's next message; None at `session.closed` or a normal close.

    Raises:
        ConnectionLost: the connection ended in any other way.
        GatewayError: the message is an `error`, or cannot be read.
    """
    frame = await connection.ws.receive()
    if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        if connection.loss is not None:
            raise connection.loss
        return None
    message = None
    with suppress(ValueError):
        message = json.loads(frame.data)
    if not isinstance(message, dict):
        raise GatewayError("the gateway must send JSON objects, and sent something else")
    if message.get("type") == "error":
        text = message.get("message") or "no reason given"
        raise GatewayError(f"the gateway reports an error: {text}", message.get("code"))
    return None if message.get("type") == "session.closed" else message


async def ask(ws: aiohttp.ClientWebSocketResponse, sentence: str) -> None:
    """Have one sentence spoken; its audio and a `done` follow."""
    message = {"type": "input_transcript", "transcript": sentence}
    await ws.send_json(message | {"generation_config": {}, "extra": {}})
    await ws.send_json({"type": "session.flush"})


async def converse(
    connection: InferenceConnection,
    read: Coroutine[Any, Any, None],
    write: Coroutine[Any, Any, None],
) -> None:
    """Run the reader and the writer of one session; the writer ends with `session.close`.

    Raises:
        ConnectionLost: the session ended before the writer had closed it.
        Exception: whatever else the reader or the writer raised.
    """
    reader = asyncio.create_task(read, name="session-reader")
    writer = asyncio.create_task(write, name="session-writer")
    early = False
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        failed = writer.exception() if writer.done() else None
        if writer.done() and isinstance(failed, OSError | aiohttp.ClientError | None):
            # The reader drains; or it is about to tell why the writer could not send.
            await asyncio.wait((reader,), timeout=DRAIN_SECONDS)
        early = reader.done() and (failed is not None or not writer.done())
    finally:
        reader.cancel()
        writer.cancel()
        read_result, write_result = await asyncio.gather(reader, writer, return_exceptions=True)
    if isinstance(read_result, Exception):
        raise read_result
    if early:
        code = connection.ws.close_code or aiohttp.WSCloseCode.ABNORMAL_CLOSURE
        raise ConnectionLost(f"the gateway ended the session early, with code {code}", code=code)
    if isinstance(write_result, Exception):
        raise write_result


async def once(item: T) -> AsyncIterator[T]:
    """Give to a pump what is all there already."""
    yield item
