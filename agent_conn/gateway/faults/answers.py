"""Faulty answers to a handshake request."""

from __future__ import annotations

import asyncio
import base64
import hashlib

from aiohttp import hdrs, web

from agent_conn.gateway.faults.kinds import (
    BadAccept,
    DropHandshake,
    Fault,
    Garbage,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    StallInHandshake,
    UnaskedExtension,
    UnaskedSubprotocol,
)
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.sockets import PeerSocket

WRONG_ACCEPT = base64.b64encode(hashlib.sha1(b"wrong", usedforsecurity=False).digest())


async def answer_badly(
    fault: Fault | None,
    transport: asyncio.Transport,
    peer_socket: PeerSocket,
    handshake: Handshake,
) -> web.Response | None:
    """Answer the request as `fault` says, or return None if it leaves the handshake alone.

    Returns when an answer is to be sent by the caller, or when the connection is closed.
    """
    match fault:
        case Reject(status=status, headers=headers, body=body):
            return web.Response(status=status, headers=headers, body=body)
        case Redirect(location=location, status=status):
            return web.Response(status=status, headers={hdrs.LOCATION: location})
        case NotWebSocket(body=body):
            return web.Response(status=200, body=body, content_type="text/plain")
        case StallInHandshake():
            peer_socket.phase = "stalled in handshake"
        case DropHandshake():
            transport.close()
        case Reset(phase="handshake"):
            peer_socket.reset()
        case Garbage(data=data):
            transport.write(data)
            transport.close()
        case BadAccept():
            transport.write(_bad_accept())
            handshake.answer(101, asyncio.get_running_loop().time())
        case _:
            return None
    await peer_socket.closed.wait()
    return web.Response(status=500)


def unasked_headers(fault: Fault | None) -> dict[str, str]:
    """Return what `fault` adds to a 101."""
    if isinstance(fault, UnaskedExtension):
        return {hdrs.SEC_WEBSOCKET_EXTENSIONS: fault.extension}
    if isinstance(fault, UnaskedSubprotocol):
        return {hdrs.SEC_WEBSOCKET_PROTOCOL: fault.subprotocol}
    return {}


def _bad_accept() -> bytes:
    lines = (
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + WRONG_ACCEPT,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"
