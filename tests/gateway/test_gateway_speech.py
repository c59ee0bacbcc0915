from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from agent_conn.errors import ConfigurationError
from agent_conn.gateway import (
    Gateway,
    LocalSpeech,
    Recognizer,
    SpeechFailed,
    SpeechUnavailable,
    Transcript,
)
from agent_conn.gateway.sessions.protocol import (
    InputAudio,
    InputTranscript,
    SessionClose,
    SessionFinalize,
    SessionFlush,
    SttCreate,
    TtsCreate,
    decode_audio,
    split_audio,
    to_json,
)
from agent_conn.gateway.speech.espeak import Voice
from agent_conn.gateway.speech.sphinx_worker import HEADER, LENGTH, SAMPLE_RATE, serve

pytest.importorskip("pocketsphinx")
pytest.importorskip("espeakng_loader")

pytestmark = pytest.mark.timeout(30)
RATE = 24_000
LONGER = "the weather is nice today and we need more time"


@pytest.fixture
async def speech() -> AsyncIterator[LocalSpeech]:
    async with LocalSpeech() as engine:
        yield engine


async def speak(engine: LocalSpeech, text: str, rate: int = RATE) -> bytes:
    return b"".join([piece.pcm async for piece in engine.synthesize(text, rate)])


async def listen(recognizer: Recognizer, pcm: bytes, rate: int = RATE) -> list[Transcript]:
    heard = []
    for chunk in split_audio(pcm, rate):
        heard += await recognizer.feed(chunk)
    return heard


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
async def test_hello_world_comes_back_word_for_word(speech: LocalSpeech, rate: int) -> None:
    recognizer = speech.recognizer(rate)
    heard = await listen(recognizer, await speak(speech, "hello world", rate), rate)
    heard += await recognizer.finalize()
    assert [transcript.text for transcript in heard if transcript.final] == ["hello world"]
    final = heard[-1]
    assert [word.text for word in final.words] == ["hello", "world"]
    assert 0.5 < final.duration < 1.5
    assert 0 < final.confidence <= 1
    await recognizer.aclose()


async def test_a_longer_sentence_comes_back_with_interims_on_the_way(speech: LocalSpeech) -> None:
    recognizer = speech.recognizer(RATE)
    interims = await listen(recognizer, await speak(speech, LONGER))
    finals = await recognizer.finalize()
    assert len(interims) > 3
    assert not any(interim.final for interim in interims)
    assert [final.text for final in finals] == [LONGER]
    await recognizer.aclose()


async def test_a_pause_ends_an_utterance(speech: LocalSpeech) -> None:
    recognizer = speech.recognizer(RATE)
    silence = bytes(2 * RATE)
    hello = await speak(speech, "hello world")
    heard = await listen(recognizer, silence + hello + silence + hello + silence)
    finals = [transcript for transcript in heard if transcript.final]
    assert [final.text for final in finals] == ["hello world", "hello world"]
    assert 0.8 < finals[0].start < 1.2
    assert finals[1].start > finals[0].start + 1.5
    assert await recognizer.finalize() == []
    await recognizer.aclose()


async def test_silence_is_not_heard_as_words(speech: LocalSpeech) -> None:
    recognizer = speech.recognizer(RATE)
    assert await listen(recognizer, bytes(4 * RATE)) == []
    assert await recognizer.finalize() == []
    await recognizer.aclose()


async def test_words_are_timed_across_sentences(speech: LocalSpeech) -> None:
    pieces = [piece async for piece in speech.synthesize("Hello world. See you.", RATE)]
    words = [word for piece in pieces for word in piece.words]
    assert [word.text.strip(".") for word in words] == ["Hello", "world", "See", "you"]
    starts = [word.start for word in words]
    assert starts == sorted(starts)
    assert words[2].start >= len(pieces[0].pcm) / 2 / RATE


async def test_real_speech_goes_through_a_gateway_and_back(speech: LocalSpeech) -> None:
    async with Gateway(speech) as gateway, aiohttp.ClientSession() as session:
        async with session.ws_connect(gateway.url("/v1/tts")) as ws:
            for message in (TtsCreate(RATE), InputTranscript("hello world"), SessionFlush()):
                await ws.send_str(to_json(message))
            await ws.send_str(to_json(SessionClose()))
            spoken = [json.loads(message.data) async for message in ws]
        pcm = b"".join(decode_audio(m["audio"]) for m in spoken if m["type"] == "output_audio")
        async with session.ws_connect(gateway.url("/v1/stt")) as ws:
            await ws.send_str(to_json(SttCreate(RATE)))
            for chunk in split_audio(pcm, RATE):
                await ws.send_str(to_json(InputAudio(chunk)))
            await ws.send_str(to_json(SessionFinalize()))
            await ws.send_str(to_json(SessionClose()))
            heard = [json.loads(message.data) async for message in ws]
    finals = [m["transcript"] for m in heard if m["type"] == "final_transcript"]
    assert finals == ["hello world"]
    assert "interim_transcript" in {m["type"] for m in heard}


async def test_the_event_loop_stays_free_while_speech_is_recognised(speech: LocalSpeech) -> None:
    await speech.warm_up()
    loop = asyncio.get_running_loop()
    ticks: list[float] = []
    ticking = True

    def tick() -> None:
        ticks.append(time.perf_counter())
        if ticking:
            loop.call_later(0.002, tick)

    tick()
    pcm = await speak(speech, LONGER)
    recognizers = [speech.recognizer(RATE) for _ in range(2)]
    started = time.perf_counter()
    await asyncio.gather(*(listen(recognizer, pcm) for recognizer in recognizers))
    await asyncio.gather(*(recognizer.finalize() for recognizer in recognizers))
    took = time.perf_counter() - started
    ticking = False
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    # Decoding in this process would hold the loop for 0.2 s at each finalize.
    assert max(gaps) < 0.15
    assert len(gaps) > took / 0.03
    for recognizer in recognizers:
        await recognizer.aclose()


async def test_a_recogniser_is_reused_and_forgets(speech: LocalSpeech) -> None:
    pcm = await speak(speech, "hello world")
    for _ in range(2):
        recognizer = speech.recognizer(RATE)
        heard = await listen(recognizer, pcm) + await recognizer.finalize()
        await recognizer.aclose()
        await recognizer.aclose()
        assert heard[-1].text == "hello world"
        assert heard[-1].start < 0.5
        with pytest.raises(SpeechFailed, match="closed"):
            await recognizer.feed(pcm)


async def test_closing_the_engine_ends_a_recogniser_in_use() -> None:
    engine = LocalSpeech()
    recognizer = engine.recognizer(RATE)
    await recognizer.feed(bytes(2400))
    async with asyncio.timeout(5):
        await engine.aclose()
        await engine.aclose()
    with pytest.raises(SpeechFailed):
        await recognizer.feed(bytes(2400))
    await recognizer.aclose()


async def test_the_recognisers_process_answers_each_request_in_order(speech: LocalSpeech) -> None:
    pieces = [piece async for piece in speech.synthesize("hello world", SAMPLE_RATE)]
    pcm = b"".join(piece.pcm for piece in pieces)
    pause = bytes(2 * SAMPLE_RATE)
    sent = [(b"A", pcm), (b"F", b""), (b"F", b""), (b"A", pcm + pause), (b"A", pcm), (b"R", b"")]
    requests = b"".join(HEADER.pack(letter, len(data)) + data for letter, data in sent)
    answers = io.BytesIO()
    await asyncio.to_thread(serve, io.BytesIO(requests), answers)
    answers.seek(0)
    heard = [json.loads(answers.read(LENGTH.unpack(answers.read(4))[0])) for _ in sent]
    assert answers.read() == b""
    assert [said["final"] for said in heard[0]] == [False]
    assert [said["text"] for said in heard[1] if said["final"]] == ["hello world"]
    assert heard[2] == []
    assert [said["final"] for said in heard[3]] == [True]
    assert heard[5] == []


async def test_warming_up_tells_that_the_recogniser_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    async with LocalSpeech() as engine:
        with pytest.raises(SpeechFailed, match="process ended"):
            await engine.warm_up()


async def test_a_voice_that_is_not_there_is_an_error_message(speech: LocalSpeech) -> None:
    with pytest.raises(SpeechFailed, match="voice"):
        _ = [piece async for piece in speech.synthesize("hi", RATE, voice="en-nowhere+nobody")]
    async with (
        Gateway(speech) as gateway,
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/tts")) as ws,
    ):
        create = TtsCreate(RATE, voice="en-nowhere+nobody")
        for message in (create, InputTranscript("hi"), SessionFlush(), SessionClose()):
            await ws.send_str(to_json(message))
        answers = [json.loads(message.data)["type"] async for message in ws]
    assert answers == ["session.created", "error", "session.closed"]


async def test_a_missing_package_is_told_with_its_extra(
    speech: LocalSpeech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    recognizer = speech.recognizer(RATE)
    with pytest.raises(SpeechUnavailable, match=r"pip install 'agent-conn\[speech\]'"):
        await recognizer.feed(bytes(2400))
    await recognizer.aclose()


@pytest.mark.parametrize("arguments", [{"warm_recognizers": -1}, {"threads": 0}])
def test_wrong_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        LocalSpeech(**arguments)


def test_the_default_voice_is_the_one_that_is_understood_best() -> None:
    assert Voice() == Voice("en-us+edward", words_per_minute=160, pitch=45)


async def test_a_client_that_leaves_amid_speech_leaves_the_gateway_idle(
    speech: LocalSpeech,
) -> None:
    async with Gateway(speech) as gateway, aiohttp.ClientSession() as session:
        async with session.ws_connect(gateway.url("/v1/tts")) as ws:
            for message in (TtsCreate(RATE), InputTranscript(LONGER * 20), SessionFlush()):
                await ws.send_str(to_json(message))
            assert json.loads((await ws.receive(5)).data)["type"] == "session.created"
        await gateway.wait_idle(5)
        assert gateway.connections == []
