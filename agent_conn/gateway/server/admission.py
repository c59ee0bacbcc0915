"""Decides whom to let in, by a request's Host header and by its token."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import hdrs, web

from agent_conn.gateway.server.guesses import GuessLimit
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.hosts import HostNames
from agent_conn.gateway.server.sockets import PeerSocket
from agent_conn.gateway.server.tokens import BearerCheck, InvalidToken, WrongToken


class Admission:
    """Refuses a request that names another host, or has no valid token.

    Without `hosts` every name is good. An address that sent too many wrong tokens has to wait
    until the next, which is not looked at before.
    """

    def __init__(self, bearer: BearerCheck, hosts: HostNames | None) -> None:
        self._bearer = bearer
        self._hosts = hosts
        self._guesses = GuessLimit()

    def refuse_host(self, request: web.Request, handshake: Handshake) -> web.Response | None:
        """Return the refusal of a request that names another host, None for any other."""
        if self._hosts is None or self._hosts.include(request.headers.get(hdrs.HOST, "")):
            return None
        return refuse(handshake, HTTPStatus.FORBIDDEN, "the Host header names another host")

    def refuse_token(
        self, request: web.Request, peer_socket: PeerSocket, handshake: Handshake
    ) -> web.Response | None:
        """Return the refusal of a request without a valid token, None for any other."""
        now = asyncio.get_running_loop().time()
        if self._bearer.needed and (wait := self._guesses.wait(peer_socket.host, now)):
            refused = refuse(
                handshake,
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many wrong tokens from this address; wait {wait} s",
            )
            refused.headers[hdrs.RETRY_AFTER] = str(wait)
            return refused
        try:
            self._bearer.check(request.headers.get(hdrs.AUTHORIZATION))
        except InvalidToken as reason:
            if isinstance(reason, WrongToken):
                self._guesses.wrong(peer_socket.host, now)
            return refuse(handshake, HTTPStatus.UNAUTHORIZED, str(reason))
        return None


def refuse(handshake: Handshake, status: HTTPStatus, message: str) -> web.Response:
    """Return a refusal that says why, in JSON, and note the reason in `handshake`."""
    handshake.reason = message
    return web.json_response(
        {"type": "error", "message": message, "code": status.value}, status=status
    )
