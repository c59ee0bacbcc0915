"""Faulty answers to a handshake request."""

from __future__ import annotations

import asyncio
import base64
import hashlib

from aiohttp import hdrs, web

from agent_conn.gateway.faults.kinds import (
    BadAccept,
    ConcurrencyLimit,
    DropAfter,
    DropHandshake,
    Fault,
    Garbage,
    GoSilent,
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
        case ConcurrencyLimit():
            return web.json_response(_quota_exceeded(handshake.path), status=429)
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


async def cut_short(fault: Fault | None, peer_socket: PeerSocket) -> None:
    """End or silence the connection of a plain HTTP answer, if `fault` is for an open one.

    Raises:
        ConnectionError: the connection has ended by the fault.
    """
    match fault:
        case Reset() | DropAfter(reset=True):
            peer_socket.reset()
        case DropAfter() if peer_socket.transport is not None:
            peer_socket.transport.close()
        case GoSilent():
            pass
        case _:
            return
    await peer_socket.closed.wait()
    raise ConnectionResetError("the connection ended by a fault")


def unasked_headers(fault: Fault | None) -> dict[str, str]:
    """Return what `fault` adds to a 101."""
    if isinstance(fault, UnaskedExtension):
        return {hdrs.SEC_WEBSOCKET_EXTENSIONS: fault.extension}
    if isinstance(fault, UnaskedSubprotocol):
        return {hdrs.SEC_WEBSOCKET_PROTOCOL: fault.subprotocol}
    return {}


def _quota_exceeded(path: str) -> dict[str, str]:
    # As LiveKit's gateway words it; `remaining_limit` is a string there.
    service = "llm" if path.startswith("/v1/chat/") else path.rpartition("/")[2]
    category = f"MaxConcurrentGateway{service.upper()}"
    return {
        "type": "inference_quota_exceeded",
        "error": f"quota exceeded, category: {category}",
        "hint": "Too many connections are open. Close one, or dial again later.",
        "quota_type": service,
        "category": category,
        "remaining_limit": "0",
        "documentation_url": "https://docs.livekit.io/agents/models/inference/",
    }


def _bad_accept() -> bytes:
    lines = (
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + WRONG_ACCEPT,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"
