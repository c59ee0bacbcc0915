"""A local chat-completions route, which says one word and keeps the headers it got."""

from __future__ import annotations

import json
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from agent_conn import AgentIdentity

_CHUNK = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


class ChatServer:
    """Serves ``POST /v1/chat/completions``, and redirects ``/v1/away`` to ``away``."""

    def __init__(self, away: str = "") -> None:
        self.requests: list[web.BaseRequest] = []
        self._away = away
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_route("*", "/v1/away", self._redirect)
        app.router.add_route("*", "/{path:.*}", self._accept)
        self._server = TestServer(app)

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def base_url(self) -> str:
        return str(self._server.make_url("/v1"))

    @property
    def identities(self) -> list[AgentIdentity]:
        """The ids of each request, in the order they came."""
        names = ("X-LiveKit-Job-ID", "X-LiveKit-Room-ID", "X-LiveKit-Agent-ID")
        return [
            AgentIdentity(*(request.headers.get(name) for name in names))
            for request in self.requests
        ]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if not (await request.json()).get("stream"):
            message = {"role": "assistant", "content": "hello"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            return web.json_response({**_CHUNK, "object": "chat.completion", "choices": choices})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, reason in (({"role": "assistant", "content": "hello"}, None), ({}, "stop")):
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": reason}
            await response.write(
                f"data: {json.dumps({**_CHUNK, 'choices': [choice]})}\n\n".encode()
            )
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _redirect(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.Response(status=307, headers={"Location": self._away})

    async def _accept(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.json_response({})
