from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from agent_conn.gateway import Gateway, ScriptedEngine
from agent_conn.gateway.sessions.protocol import (
    InputAudio,
    InputTranscript,
    SessionClose,
    SessionFinalize,
    SessionFlush,
    SttCreate,
    TtsCreate,
    Unknown,
    decode_audio,
    to_json,
)

if TYPE_CHECKING:
    from gateway.conftest import Client

pytestmark = pytest.mark.timeout(10)
CHUNK = InputAudio(bytes(1600))


async def say(ws: aiohttp.ClientWebSocketResponse, *messages: Any) -> None:
    for message in messages:
        await ws.send_str(message if isinstance(message, str) else to_json(message))


async def rest(ws: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any]]:
    return [json.loads(message.data) async for message in ws]


def types(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


async def test_stt_gives_interims_a_final_and_a_clean_close(either_client: Client) -> None:
    ws = await either_client.open("/v1/stt?model=auto")
    await say(ws, SttCreate(), CHUNK, CHUNK, CHUNK, CHUNK, SessionFinalize(), SessionClose())
    messages = await rest(ws)
    assert types(messages) == [
        "session.created",
        "start_of_speech",
        "interim_transcript",
        "interim_transcript",
        "final_transcript",
        "session.finalized",
        "session.closed",
    ]
    final = messages[4]
    assert final["transcript"] == "hello world"
    assert final["duration"] == pytest.approx(0.2)
    assert [word["word"] for word in final["words"]] == ["hello", "world"]
    assert ws.close_code == 1000


async def test_stt_hears_the_scripted_transcripts_in_turn() -> None:
    async with (
        Gateway(ScriptedEngine(("one", "two"))) as gateway,
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/stt")) as ws,
    ):
        again = (CHUNK, SessionFinalize())
        await say(ws, SttCreate(), *again, *again, *again, SessionClose())
        finals = [m["transcript"] for m in await rest(ws) if m["type"] == "final_transcript"]
    assert finals == ["one", "two", "one"]


async def test_a_close_without_finalize_still_gives_the_final(client: Client) -> None:
    ws = await client.open("/v1/stt")
    await say(ws, SttCreate(), CHUNK, SessionClose())
    assert types(await rest(ws))[-2:] == ["final_transcript", "session.closed"]


async def test_a_broken_message_is_answered_by_an_error_and_the_session_goes_on(
    client: Client,
) -> None:
    ws = await client.open("/v1/stt")
    await say(ws, CHUNK, "{", SttCreate(), SttCreate(), Unknown("dance"), SessionClose())
    messages = await rest(ws)
    assert types(messages) == ["error", "error", "session.created", "error", "session.closed"]
    assert "session.create" in messages[0]["message"]


async def test_the_session_id_of_the_header_is_the_session_id_of_the_messages(
    client: Client,
) -> None:
    ws = await client.open("/v1/stt", headers={"X-LiveKit-Session-ID": "mine"})
    await say(ws, SttCreate(), SessionClose())
    assert {message["session_id"] for message in await rest(ws)} == {"mine"}


async def test_tts_speaks_in_chunks_of_fifty_milliseconds_with_an_alignment(
    either_client: Client,
) -> None:
    ws = await either_client.open("/v1/tts")
    await say(ws, TtsCreate(24_000), InputTranscript("hello "), InputTranscript("world"))
    await say(ws, SessionFlush(), SessionClose())
    messages = await rest(ws)
    audio = [decode_audio(m["audio"]) for m in messages if m["type"] == "output_audio"]
    assert {len(chunk) for chunk in audio[:-1]} == {2400}
    seconds = sum(map(len, audio)) / 48_000
    assert seconds == pytest.approx(11 * 0.06)
    assert types(messages)[0] == "session.created"
    assert types(messages)[-3:] == ["output_alignment", "done", "session.closed"]
    words = messages[-3]["words"]
    assert [word["word"] for word in words] == ["hello", "world"]
    assert words[-1]["end"] == pytest.approx(seconds)
    assert ws.close_code == 1000


async def test_each_flush_is_done_in_order(client: Client) -> None:
    ws = await client.open("/v1/tts")
    await say(ws, TtsCreate(), InputTranscript("a"), SessionFlush(), SessionFlush())
    await say(ws, InputTranscript("b"), SessionFlush(), SessionClose())
    assert types(await rest(ws)).count("done") == 3


async def test_given_audio_is_spoken_as_it_is() -> None:
    pcm = bytes(range(200))
    async with (
        Gateway(ScriptedEngine(audio=pcm)) as gateway,
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/tts")) as ws,
    ):
        await say(ws, TtsCreate(), InputTranscript("x"), SessionFlush(), SessionClose())
        audio = [m["audio"] for m in await rest(ws) if m["type"] == "output_audio"]
    assert b"".join(map(decode_audio, audio)) == pcm


async def test_tts_text_before_the_session_is_an_error(client: Client) -> None:
    ws = await client.open("/v1/tts")
    await say(ws, InputTranscript("x"), SessionFlush(), SessionClose())
    assert types(await rest(ws)) == ["error", "error", "session.closed"]


async def test_echo_sends_every_message_back_and_counts_it(
    either_gateway: Gateway, either_client: Client
) -> None:
    ws = await either_client.open("/v1/echo")
    await ws.send_str("grüße")
    await ws.send_bytes(b"\x00\x01")
    assert [(await ws.receive()).data, (await ws.receive()).data] == ["grüße", b"\x00\x01"]
    (connection,) = either_gateway.connections
    await either_gateway.wait_until(lambda: connection.messages_received == 2)
    assert connection.path == "/v1/echo"
    assert connection.bytes_received == connection.bytes_sent == 9
    assert connection.close_code is None
    await ws.close()
    await either_gateway.wait_idle(2)
    assert either_gateway.connections == []
    assert connection.close_code == 1000


async def test_pings_are_answered(client: Client) -> None:
    ws = await client.open(autoping=False)
    await ws.ping(b"there?")
    message = await ws.receive(2)
    assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"there?")


async def test_a_gateway_with_a_heartbeat_pings() -> None:
    async with (
        Gateway(heartbeat=0.05) as gateway,
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/echo"), autoping=False) as ws,
    ):
        assert (await ws.receive(2)).type is aiohttp.WSMsgType.PING


SDK_1_8_1 = {"User-Agent": "LiveKit Agents/1.8.1 (python 3.11.7)"}
SPEAK = (to_json(SttCreate()), to_json(CHUNK), to_json(SessionFinalize()))


async def test_an_old_client_that_finalizes_is_closed_and_not_left_waiting(client: Client) -> None:
    async with client.session.ws_connect(client.gateway.url("/v1/stt"), headers=SDK_1_8_1) as ws:
        for message in SPEAK:
            await ws.send_str(message)
        async with asyncio.timeout(5):
            told = [json.loads(message.data)["type"] async for message in ws]
    assert told[-3:] == ["final_transcript", "session.finalized", "session.closed"]
    assert ws.close_code == 1000


async def test_an_old_client_that_goes_on_speaking_keeps_its_session(client: Client) -> None:
    async with client.session.ws_connect(client.gateway.url("/v1/stt"), headers=SDK_1_8_1) as ws:
        for message in (*SPEAK, *SPEAK[1:]):
            await ws.send_str(message)
        told = [json.loads(message.data)["type"] async for message in ws]
    assert told.count("session.finalized") == 2
    assert told.index("session.closed") == len(told) - 1


async def test_a_later_client_that_finalizes_closes_by_itself(client: Client) -> None:
    headers = {"User-Agent": "LiveKit Agents/1.8.4 (python 3.11.7)"}
    async with client.session.ws_connect(client.gateway.url("/v1/stt"), headers=headers) as ws:
        for message in SPEAK:
            await ws.send_str(message)
        while (await ws.receive_json())["type"] != "session.finalized":
            pass
        with pytest.raises(TimeoutError):
            await ws.receive(1.0)
