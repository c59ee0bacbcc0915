from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from agent_conn.gateway import Transcript, Word
from agent_conn.gateway.sessions.protocol import (
    ClientMessage,
    InputAudio,
    InputTranscript,
    Kind,
    ProtocolError,
    SessionClose,
    SessionFinalize,
    SessionFlush,
    SessionUpdate,
    SttCreate,
    TtsCreate,
    Unknown,
    chunk_bytes,
    parse_client_message,
    split_audio,
    to_json,
    transcript_message,
)

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Kind.STT, SttCreate(8000, "de", "auto")),
        (Kind.STT, SttCreate()),
        (Kind.STT, InputAudio(b"\x01\x02\xff\x00")),
        (Kind.STT, SessionUpdate("fr")),
        (Kind.STT, SessionUpdate()),
        (Kind.STT, SessionFinalize()),
        (Kind.STT, SessionClose()),
        (Kind.TTS, TtsCreate(48000, "m", "v", "en")),
        (Kind.TTS, TtsCreate()),
        (Kind.TTS, InputTranscript("grüße")),
        (Kind.TTS, SessionFlush()),
        (Kind.TTS, SessionClose()),
    ],
)
def test_a_client_message_survives_writing_and_reading(kind: Kind, message: ClientMessage) -> None:
    assert parse_client_message(to_json(message), kind) == message


@pytest.mark.parametrize("kind", Kind)
def test_an_unknown_type_is_no_error(kind: Kind) -> None:
    assert parse_client_message('{"type": "session.dance"}', kind) == Unknown("session.dance")


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ({}, "type"),
        ({"type": 3}, "type"),
        ({"type": "session.create"}, "settings"),
        ({"type": "session.create", "settings": []}, "settings"),
        ({"type": "session.create", "settings": {}}, "sample_rate"),
        ({"type": "session.create", "settings": {"sample_rate": "fast"}}, "sample_rate"),
        ({"type": "session.create", "settings": {"sample_rate": True}}, "sample_rate"),
        ({"type": "session.create", "settings": {"sample_rate": 100}}, "sample_rate"),
        ({"type": "session.create", "settings": {"sample_rate": "9" * 5000}}, "sample_rate"),
        (
            {"type": "session.create", "settings": {"sample_rate": "16000", "encoding": "opus"}},
            "encoding",
        ),
        (
            {"type": "session.create", "settings": {"sample_rate": "16000", "language": 1}},
            "language",
        ),
        ({"type": "input_audio"}, "audio"),
        ({"type": "input_audio", "audio": "!"}, "audio"),
        ({"type": "input_audio", "audio": "é"}, "audio"),
        ({"type": "input_audio", "audio": base64.b64encode(b"odd").decode()}, "half a sample"),
        ({"type": "session.update"}, "settings"),
    ],
)
def test_a_broken_stt_message_is_named(message: Any, complaint: str) -> None:
    text = message if isinstance(message, str) else json.dumps(message)
    with pytest.raises(ProtocolError, match=complaint):
        parse_client_message(text, Kind.STT)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"type": "session.create"}, "sample_rate"),
        ({"type": "session.create", "sample_rate": "24000", "voice": 7}, "voice"),
        ({"type": "input_transcript"}, "transcript"),
    ],
)
def test_a_broken_tts_message_is_named(message: Any, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        parse_client_message(json.dumps(message), Kind.TTS)


def test_a_chunk_is_fifty_milliseconds() -> None:
    assert chunk_bytes(24_000) == 2400
    assert [len(chunk) for chunk in split_audio(bytes(5000), 24_000)] == [2400, 2400, 200]


def test_a_transcript_is_sent_with_its_words() -> None:
    transcript = Transcript("hi", True, 1.0, 0.5, 0.9, (Word("hi", 1.0, 1.5, 0.8),), "en")
    assert transcript_message(transcript, "s") == {
        "type": "final_transcript",
        "session_id": "s",
        "transcript": "hi",
        "language": "en",
        "start": 1.0,
        "duration": 0.5,
        "confidence": 0.9,
        "words": [{"word": "hi", "start": 1.0, "end": 1.5, "confidence": 0.8}],
    }
