"""Chat completions of the gateway: what a client of OpenAI's API sees, and the faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from agent_conn._identity import AttributionLevel
from agent_conn.errors import ConfigurationError
from agent_conn.gateway import (
    CloseWith,
    DropAfter,
    Fault,
    Gateway,
    GoSilent,
    Reject,
    Reset,
    mint_token,
)

pytestmark = pytest.mark.timeout(20)
SECRET = "s" * 32
HELLO = {"model": "a/b", "messages": [{"role": "user", "content": "hi there"}]}


@pytest.fixture
async def chat(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Gateway]:
    async with Gateway(chat_replies=["one two", "three"]) as gateway:
        yield gateway


def ask(session: aiohttp.ClientSession, gateway: Gateway, body: Any, **options: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return session.post(f"{gateway.base_url}/chat/completions", data=data, **options)


async def reply(session: aiohttp.ClientSession, gateway: Gateway, body: Any) -> str:
    async with ask(session, gateway, body) as response:
        text: str = (await response.json())["choices"][0]["message"]["content"]
        return text


async def read_into(got: bytearray, asking: Any) -> None:
    async with asking as response:
        async for line in response.content:
            got += line


async def events(response: aiohttp.ClientResponse) -> list[Any]:
    lines = [line.decode().rstrip("\n") async for line in response.content]
    assert all(line.startswith("data: ") for line in lines[::2])
    assert not any(lines[1::2])
    return [line if line == "data: [DONE]" else json.loads(line[6:]) for line in lines[::2]]


async def test_a_whole_answer_echoes_the_model_and_counts_words(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    async with ask(session, chat, HELLO) as response:
        assert response.status == 200
        answer = await response.json()
    assert (answer["object"], answer["model"]) == ("chat.completion", "a/b")
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "one two"},
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


async def test_a_stream_gives_the_answer_in_pieces_and_then_is_done(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    async with ask(session, chat, {**HELLO, "stream": True}) as response:
        assert response.content_type == "text/event-stream"
        *chunks, done = await events(response)
    assert done == "data: [DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "one "},
        {"content": "two"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_stream_ends_with_its_usage_when_asked_to(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    async with ask(session, chat, body) as response:
        *chunks, last, _ = await events(response)
    assert [chunk["usage"] for chunk in chunks] == [None] * 4
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 4


async def test_replies_come_in_turn_and_begin_again(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    assert [await reply(session, chat, HELLO) for _ in range(3)] == ["one two", "three", "one two"]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("hi", "You said: hi"),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}], "You said: a"),
        (" ", "You said nothing."),
        (None, "You said nothing."),
    ],
)
async def test_without_replies_it_repeats_the_users_last_words(
    gateway: Gateway, session: aiohttp.ClientSession, content: Any, answer: str
) -> None:
    messages = [
        {"role": "user", "content": "before"},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "not this"},
    ]
    assert await reply(session, gateway, {"model": "m", "messages": messages}) == answer


async def test_a_request_is_recorded_with_its_ids_and_model(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    headers = {"X-LiveKit-Job-ID": "AJ_1", "X-LiveKit-Room-ID": "RM_1"}
    for stream in (False, True):
        async with ask(session, chat, {**HELLO, "stream": stream}, headers=headers) as response:
            await response.read()
    assert [
        (shake.path, shake.model, shake.level, shake.status, shake.answered_at is not None)
        for shake in chat.handshakes
    ] == [("/v1/chat/completions", "a/b", AttributionLevel.ROOM, 200, True)] * 2


async def test_it_opens_to_a_valid_token_alone(session: aiohttp.ClientSession) -> None:
    async with Gateway(api_key="key", api_secret=SECRET) as gateway:
        for token, status in ((mint_token("key", SECRET), 200), (mint_token("key", "t" * 32), 401)):
            headers = {"Authorization": f"Bearer {token}"}
            async with ask(session, gateway, HELLO, headers=headers) as response:
                assert response.status == status
                assert (await response.json()) is not None


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        ([], None),
        ({"messages": HELLO["messages"]}, "model"),
        ({**HELLO, "model": 7}, "model"),
        ({"model": "m"}, "messages"),
        ({**HELLO, "messages": []}, "messages"),
        ({**HELLO, "messages": ["hi"]}, "messages"),
        ({**HELLO, "messages": [{"content": "hi"}]}, "messages"),
        ({**HELLO, "messages": [{"role": "user", "content": 7}]}, "messages"),
        ({**HELLO, "stream": "yes"}, "stream"),
        ({**HELLO, "stream_options": 7}, "stream_options"),
        ({**HELLO, "n": 2}, "n"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_wrong_request_is_refused_with_its_parameter(
    chat: Gateway, session: aiohttp.ClientSession, body: Any, parameter: str | None
) -> None:
    async with ask(session, chat, body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", parameter)
    assert (parameter or "body").removesuffix("s") in error["message"]
    assert await reply(session, chat, HELLO) == "one two"


async def test_a_body_over_the_bound_and_another_method_are_refused(
    loop_reports: list[dict[str, Any]], session: aiohttp.ClientSession
) -> None:
    async with Gateway(max_msg_size=100) as gateway:
        async with ask(session, gateway, {**HELLO, "user": "u" * 200}) as response:
            assert (response.status, response.content_type) == (413, "application/json")
        async with session.get(f"{gateway.base_url}/chat/completions") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_a_rejection_is_answered_as_it_says(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    chat.inject(Reject(429, {"Retry-After": "3"}, b'{"type": "inference_quota_exceeded"}'))
    async with ask(session, chat, HELLO) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")
    assert await reply(session, chat, HELLO) == "one two"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Reset(), DropAfter(), DropAfter(reset=True)], ids=repr)
async def test_a_fault_ends_an_answer_before_its_end(
    chat: Gateway, session: aiohttp.ClientSession, fault: Fault, stream: bool
) -> None:
    chat.inject(fault)
    got = bytearray()
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await read_into(got, ask(session, chat, {**HELLO, "stream": stream}))
    assert b"two" not in got
    await chat.wait_idle()


async def test_a_silent_stream_gives_its_first_event_and_no_more(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    chat.inject(GoSilent())
    async with ask(session, chat, {**HELLO, "stream": True}) as response:
        assert b"assistant" in await response.content.readline()
        await response.content.readline()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await response.content.readline()
    await chat.wait_idle()


async def test_a_fault_of_websocket_frames_leaves_an_answer_alone(
    chat: Gateway, session: aiohttp.ClientSession
) -> None:
    injection = chat.inject(CloseWith(1011))
    assert await reply(session, chat, HELLO) == "one two"
    assert injection.struck == 1


async def test_a_peer_that_leaves_within_its_body_leaves_nothing_behind(
    chat: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", chat.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await chat.wait_until(lambda: len(chat.handshakes) == 1)
    writer.close()
    await writer.wait_closed()
    await chat.wait_idle()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("replies", ["one", [1]])
def test_replies_that_are_no_texts_are_refused(replies: Any) -> None:
    with pytest.raises(ConfigurationError, match="chat_replies"):
        Gateway(chat_replies=replies)
