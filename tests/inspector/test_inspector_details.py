"""What is kept of one connection: no credential, no content but transcripts, within bounds."""

from __future__ import annotations

import json
import sys

import aiohttp
from helpers.canary import COOKIE, QUERY, TOKEN, WORKER_TOKEN
from helpers.inspecting import details_of, dial, events_of

from agent_conn.gateway import Gateway, Inspector
from agent_conn.gateway.inspector.message_log import RUN_BYTES, MessageLog
from agent_conn.gateway.sessions.protocol import (
    InputAudio,
    InputTranscript,
    SessionClose,
    SttCreate,
    TtsCreate,
    to_json,
)


async def test_credentials_reach_no_answer_of_the_inspector(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    query = f"token={QUERY}&access_token={QUERY}&api_key={QUERY}&model=m"
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Cookie": f"session={COOKIE}",
        "X-Api-Key": WORKER_TOKEN,
        "X-Custom-Auth": WORKER_TOKEN,
        "X-Other": f"Bearer {TOKEN}",
        "Referer": f"https://app.example/call?token={QUERY}",
    }
    ws = await session.ws_connect(
        inspected.url(f"/v1/echo?{query}"),
        headers=headers,
        protocols=("realtime", f"openai-insecure-api-key.{WORKER_TOKEN}", "a" * 41),
    )
    async with ws, events_of(http, inspected) as events:
        row = await events.until(1, state="open")
        assert (row["path"], row["model"]) == ("/v1/echo", "m")
        details = await details_of(http, inspected, 1)
        shown = json.dumps([details, events.rows, events.status])
        for secret in (TOKEN, WORKER_TOKEN, COOKIE, QUERY):
            assert secret not in shown
        shown_headers = dict(details["headers"])
        assert shown_headers["X-Other"] == shown_headers["Referer"] == "<redacted>"
        assert shown_headers["Host"] == f"127.0.0.1:{inspected.port}"
        shown_protocols = dict(details["headers"])["Sec-WebSocket-Protocol"]
        assert shown_protocols == "realtime, <redacted>, <redacted>"


async def test_the_log_has_types_and_sizes_and_no_content(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with dial(session, inspected, "/v1/stt") as ws:
        create = to_json(SttCreate())
        audio = to_json(InputAudio(b"\x55\xaa" * 4000))
        for text in (create, audio, audio, '{"note": "private", "type": "odd"}', "private"):
            await ws.send_str(text)
        await ws.send_bytes(b"private")
        while (await ws.receive(5)).json()["type"] != "error":
            pass
        details = await details_of(http, inspected, 1)
        incoming = [[*line[2:3], *line[5:]] for line in details["messages"] if line[1] == "in"]
        assert incoming[:3] == [
            ["session.create", 1, len(create)],
            ["input_audio", 2, 2 * len(audio)],
            ["odd", 1, 34],
        ]
        assert "private" not in json.dumps(details)
        assert "VapVqlWq" not in json.dumps(details)
        assert [line[1:2] + line[3:] for line in details["transcript"]] == [
            ["out", "said <script>window.pwned = 1</script> here", False]
        ]


async def test_the_log_and_the_transcript_are_bounded_and_count_what_they_lost(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with dial(session, inspected, "/v1/tts") as ws:
        await ws.send_str(to_json(TtsCreate()))
        for number in range(150):
            await ws.send_str(to_json(InputTranscript(f"{number} " + "x" * 3000)))
            await ws.send_str(f'{{"type":"unknown.{number}"}}')
        await inspected.wait_until(lambda: inspected.connections[0].messages_received == 301)
        details = await details_of(http, inspected, 1)
    assert len(details["transcript"]) == 100
    assert details["transcriptGivenUp"] == 50
    assert max(len(line[3]) for line in details["transcript"]) == 2001
    assert len(details["messages"]) == 200
    assert sum(line[5] for line in details["messages"]) + details["messagesGivenUp"] == 302


def test_a_log_knows_how_much_memory_its_lines_take() -> None:
    log = MessageLog(max_runs=3, max_transcripts=2)
    for number in range(8):
        kind = "final_transcript" if number % 2 else "interim_transcript"
        text = json.dumps({"type": kind, "transcript": "word " * number})
        log.add("out", text, len(text), float(number))
        log.add("in", b"", 0, float(number))
        kept = sum(sys.getsizeof(line.text) for line in log.transcripts)
        assert log.size == RUN_BYTES * len(log.runs) + kept
    assert (len(log.runs), len(log.transcripts)) == (3, 2)


async def test_a_talk_whose_log_grows_pushes_out_what_has_ended(
    http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with Gateway(inspector=Inspector()) as gateway:
        # What has ended, with a log of about 800 kB each: 100 texts of 2,000 wide characters.
        for _ in range(25):
            async with session.ws_connect(gateway.url("/v1/tts")) as ws:
                await ws.send_str(to_json(TtsCreate()))
                for number in range(100):
                    await ws.send_str(
                        json.dumps(
                            {"type": "input_transcript", "transcript": f"{number}" + "🙂" * 2_000},
                            ensure_ascii=False,
                        )
                    )
                await ws.send_str(to_json(SessionClose()))
                while (await ws.receive(5)).type is aiohttp.WSMsgType.TEXT:
                    pass
        assert await details_of(http, gateway, 1) == 404
        last = await details_of(http, gateway, 25)
        assert len(last["transcript"]) == 100
