"""Chat completions in OpenAI's format: scripted answers, whole or as a stream of events."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import cycle

from aiohttp import hdrs, web

from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.answers import cut_short
from agent_conn.gateway.faults.kinds import Fault
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.sockets import PeerSocket
from agent_conn.gateway.sessions.body import BodyMissing, read_body
from agent_conn.gateway.sessions.protocol import JsonObject

CHAT_PATH = "/v1/chat/completions"
WORD = re.compile(r"\S+\s*|\s+")


class BadRequest(ValueError):
    """A request that cannot be answered. The text names the parameter, never its value."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation; of its content the text alone."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a request asks for."""

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False


def parse_chat_request(body: bytes) -> ChatRequest:
    """Read a request's JSON; parameters that a script has no use for are not looked at.

    Raises:
        BadRequest: it is no JSON object, or a parameter is missing or wrong.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(asked, dict):
        raise BadRequest("the body must be a JSON object")
    model, messages, stream = asked.get("model"), asked.get("messages"), asked.get("stream")
    if not isinstance(model, str) or not model:
        raise BadRequest("model must be a string", "model")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be an array of at least one message", "messages")
    if not isinstance(stream, bool | None):
        raise BadRequest("stream must be true or false", "stream")
    if asked.get("n") not in (None, 1):
        raise BadRequest("n must be 1: there is one scripted answer", "n")
    options = asked.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options must be an object", "stream_options")
    return ChatRequest(
        model, tuple(map(_message, messages)), bool(stream), options.get("include_usage") is True
    )


class ScriptedChat:
    """Gives `replies` in turn, and begins again after the last; with none it repeats the user.

    Raises:
        ConfigurationError: a reply is no text.
    """

    def __init__(self, replies: Sequence[str] = ()) -> None:
        if isinstance(replies, str) or not all(isinstance(reply, str) for reply in replies):
            raise ConfigurationError("chat_replies must be a sequence of texts")
        self._replies = cycle(tuple(replies))

    def reply_to(self, messages: Sequence[Message]) -> str:
        """Return the next reply."""
        try:
            return next(self._replies)
        except StopIteration:
            said = [message.text for message in messages if message.role == "user"]
            return f"You said: {said[-1]}" if said and said[-1].strip() else "You said nothing."


class ChatService:
    """Answers `POST /v1/chat/completions`; in its usage every word is a token."""

    def __init__(self, script: ScriptedChat) -> None:
        self._script = script

    async def answer(
        self,
        request: web.Request,
        peer_socket: PeerSocket,
        handshake: Handshake,
        fault: Fault | None,
    ) -> web.StreamResponse:
        """Answer one request, and note its model and the answer in `handshake`.

        A fault that ends or silences an open connection strikes a stream after its first
        event, and another answer before it; one that is about websocket frames does nothing.

        Raises:
            ConnectionError: the connection is gone.
        """
        if request.method != hdrs.METH_POST:
            refused = _error(HTTPStatus.METHOD_NOT_ALLOWED, "use POST")
            refused.headers[hdrs.ALLOW] = hdrs.METH_POST
            return refused
        try:
            asked = parse_chat_request(await read_body(request))
        except BadRequest as mistake:
            return _error(HTTPStatus.BAD_REQUEST, str(mistake), mistake.parameter)
        except BodyMissing as missing:
            return _error(HTTPStatus(missing.status), str(missing))
        handshake.model = asked.model
        reply = self._script.reply_to(asked.messages)
        if not asked.stream:
            await cut_short(fault, peer_socket)
            return web.json_response(_completion(asked, reply))
        response = web.StreamResponse(headers={hdrs.CACHE_CONTROL: "no-cache"})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        handshake.answer(HTTPStatus.OK, asyncio.get_running_loop().time())
        for chunk in _chunks(asked, reply):
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            await cut_short(fault, peer_socket)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _completion(asked: ChatRequest, reply: str) -> JsonObject:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": reply},
        "finish_reason": "stop",
    }
    head = _head("chat.completion", asked)
    return {**head, "choices": [choice], "usage": _usage(asked, reply)}


def _chunks(asked: ChatRequest, reply: str) -> Iterator[JsonObject]:
    head = _head("chat.completion.chunk", asked)
    if asked.include_usage:
        # Only the last chunk has it, and the others say so.
        head["usage"] = None
    deltas: list[JsonObject] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in WORD.findall(reply)]
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    if asked.include_usage:
        yield {**head, "choices": [], "usage": _usage(asked, reply)}


def _head(kind: str, asked: ChatRequest) -> JsonObject:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
    }


def _usage(asked: ChatRequest, reply: str) -> JsonObject:
    prompt = sum(len(message.text.split()) for message in asked.messages)
    completion = len(reply.split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _message(value: object) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise BadRequest("each message must be an object with a role", "messages")
    content = value.get("content")
    if content is None:
        return Message(value["role"], "")
    if isinstance(content, str):
        return Message(value["role"], content)
    if not isinstance(content, list):
        raise BadRequest("the content of a message must be a string or an array", "messages")
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return Message(value["role"], " ".join(text for text in texts if isinstance(text, str)))


def _error(status: HTTPStatus, message: str, parameter: str | None = None) -> web.Response:
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": parameter,
        "code": status.value,
    }
    return web.json_response({"error": error}, status=status)
