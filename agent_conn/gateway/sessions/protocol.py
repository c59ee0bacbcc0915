"""The gateway's JSON messages: parsed, built and checked without any I/O.

A client message is one of the dataclasses below; `to_json` writes it and
`parse_client_message` reads it. Server messages are built as mappings by the functions at
the end. Audio is pcm_s16le mono, base64 in JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from agent_conn.gateway.speech.engine import Transcript, Word

CHUNK_SECONDS = 0.05
"""Length of one audio message, in seconds."""

BAD_MESSAGE = 400
ENGINE_FAILED = 500
"""Codes of an `error`, after HTTP's."""

BYTES_PER_SAMPLE = 2
ENCODING = "pcm_s16le"
MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 48_000

JsonObject: TypeAlias = dict[str, Any]


class Kind(StrEnum):
    """Which of the gateway's services a connection uses."""

    STT = "stt"
    TTS = "tts"


class ProtocolError(ValueError):
    """A message that breaks the protocol. The text names the field and never its value."""


@dataclass(frozen=True, slots=True)
class SttCreate:
    """`session.create` of speech-to-text; `sample_rate` in hertz."""

    sample_rate: int = 16_000
    language: str | None = None
    model: str | None = None

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        settings: JsonObject = {
            "sample_rate": str(self.sample_rate),
            "encoding": ENCODING,
            "extra": {},
        }
        if self.language is not None:
            settings["language"] = self.language
        message: JsonObject = {"type": "session.create", "settings": settings}
        if self.model is not None:
            message["model"] = self.model
        return message


@dataclass(frozen=True, slots=True)
class TtsCreate:
    """`session.create` of text-to-speech; `sample_rate` in hertz."""

    sample_rate: int = 24_000
    model: str | None = None
    voice: str | None = None
    language: str | None = None

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        message: JsonObject = {
            "type": "session.create",
            "sample_rate": str(self.sample_rate),
            "encoding": ENCODING,
            "extra": {},
        }
        for name in ("model", "voice", "language"):
            if (value := getattr(self, name)) is not None:
                message[name] = value
        return message


@dataclass(frozen=True, slots=True)
class InputAudio:
    """`input_audio`: a piece of speech to recognise."""

    pcm: bytes

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        return {"type": "input_audio", "audio": encode_audio(self.pcm)}


@dataclass(frozen=True, slots=True)
class InputTranscript:
    """`input_transcript`: a piece of text to speak."""

    text: str

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        return {
            "type": "input_transcript",
            "transcript": self.text,
            "generation_config": {},
            "extra": {},
        }


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """`session.update` of speech-to-text: another language from now on, if one is given."""

    language: str | None = None

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        settings = {} if self.language is None else {"language": self.language}
        return {"type": "session.update", "settings": settings}


@dataclass(frozen=True, slots=True)
class SessionFinalize:
    """`session.finalize`: the utterance is over, give its final transcript."""

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        return {"type": "session.finalize"}


@dataclass(frozen=True, slots=True)
class SessionFlush:
    """`session.flush`: the text is complete, speak it."""

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        return {"type": "session.flush"}


@dataclass(frozen=True, slots=True)
class SessionClose:
    """`session.close`: nothing more will come."""

    def as_dict(self) -> JsonObject:
        """The message as a JSON object."""
        return {"type": "session.close"}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a type that this protocol does not know; it is to be ignored."""

    type: str


ClientMessage: TypeAlias = (
    SttCreate
    | TtsCreate
    | InputAudio
    | InputTranscript
    | SessionUpdate
    | SessionFinalize
    | SessionFlush
    | SessionClose
    | Unknown
)


def to_json(message: ClientMessage | Mapping[str, Any]) -> str:
    """Write a client message, or a server message that was built here, as JSON text."""
    if isinstance(message, Unknown):
        message = {"type": message.type}
    elif not isinstance(message, Mapping):
        message = message.as_dict()
    return json.dumps(message, separators=(",", ":"))


def parse_client_message(text: str | bytes, kind: Kind) -> ClientMessage:
    """Read a client message of a connection of `kind`.

    Raises:
        ProtocolError: the text is no JSON object, or a field is missing or of a wrong type.
    """
    message = parse_object(text)
    name = _text(message, "type")
    if kind is Kind.STT:
        return _parse_stt(name, message)
    return _parse_tts(name, message)


def parse_object(text: str | bytes) -> JsonObject:
    """Read a JSON object.

    Raises:
        ProtocolError: the text is not one.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("the message is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("the message is not a JSON object")
    return message


def _parse_stt(name: str, message: JsonObject) -> ClientMessage:
    match name:
        case "session.create":
            settings = _object(message, "settings")
            _check_encoding(settings)
            return SttCreate(
                sample_rate=_sample_rate(settings),
                language=_optional_text(settings, "language"),
                model=_optional_text(message, "model"),
            )
        case "input_audio":
            return InputAudio(decode_audio(_text(message, "audio")))
        case "session.update":
            return SessionUpdate(_optional_text(_object(message, "settings"), "language"))
        case "session.finalize":
            return SessionFinalize()
        case "session.close":
            return SessionClose()
        case _:
            return Unknown(name)


def _parse_tts(name: str, message: JsonObject) -> ClientMessage:
    match name:
        case "session.create":
            _check_encoding(message)
            return TtsCreate(
                sample_rate=_sample_rate(message),
                model=_optional_text(message, "model"),
                voice=_optional_text(message, "voice"),
                language=_optional_text(message, "language"),
            )
        case "input_transcript":
            return InputTranscript(_text(message, "transcript"))
        case "session.flush":
            return SessionFlush()
        case "session.close":
            return SessionClose()
        case _:
            return Unknown(name)


def encode_audio(pcm: bytes) -> str:
    """Return pcm as the base64 text of a message."""
    return base64.b64encode(pcm).decode("ascii")


def decode_audio(text: str) -> bytes:
    """Return the pcm of a message's base64 text.

    Raises:
        ProtocolError: the text is not base64, or holds half a sample.
    """
    try:
        pcm = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("audio is not base64") from None
    if len(pcm) % BYTES_PER_SAMPLE:
        raise ProtocolError("audio ends in half a sample")
    return pcm


def chunk_bytes(sample_rate: int) -> int:
    """Return the size in bytes of one 50 ms chunk at `sample_rate` hertz."""
    return round(sample_rate * CHUNK_SECONDS) * BYTES_PER_SAMPLE


def seconds_of(pcm: bytes, sample_rate: int) -> float:
    """Return how long pcm at `sample_rate` hertz sounds."""
    return len(pcm) / BYTES_PER_SAMPLE / sample_rate


def split_audio(pcm: bytes, sample_rate: int) -> list[bytes]:
    """Cut pcm into chunks of 50 ms; the last may be shorter."""
    size = chunk_bytes(sample_rate)
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


def session_created(session_id: str) -> JsonObject:
    """The answer to `session.create`."""
    return {"type": "session.created", "session_id": session_id}


def start_of_speech(session_id: str) -> JsonObject:
    """Speech was heard; sent before the first interim of an utterance."""
    return {"type": "start_of_speech", "session_id": session_id}


def transcript_message(transcript: Transcript, session_id: str) -> JsonObject:
    """An `interim_transcript` or a `final_transcript`."""
    return {
        "type": "final_transcript" if transcript.final else "interim_transcript",
        "session_id": session_id,
        "transcript": transcript.text,
        "language": transcript.language,
        "start": round(transcript.start, 3),
        "duration": round(transcript.duration, 3),
        "confidence": round(transcript.confidence, 3),
        "words": [
            _word(word) | {"confidence": round(word.confidence, 3)} for word in transcript.words
        ],
    }


def session_finalized(session_id: str) -> JsonObject:
    """The answer to `session.finalize`, after the final transcript."""
    return {"type": "session.finalized", "session_id": session_id}


def session_closed(session_id: str) -> JsonObject:
    """The answer to `session.close`; the connection closes after it."""
    return {"type": "session.closed", "session_id": session_id}


def output_audio(pcm: bytes, session_id: str) -> JsonObject:
    """One chunk of speech."""
    return {"type": "output_audio", "audio": encode_audio(pcm), "session_id": session_id}


def output_alignment(words: Iterable[Word], session_id: str) -> JsonObject:
    """When each word is spoken, in seconds from the beginning of the speech."""
    return {
        "type": "output_alignment",
        "session_id": session_id,
        "words": [_word(word) for word in words],
    }


def done(session_id: str) -> JsonObject:
    """All speech of one flush was sent."""
    return {"type": "done", "session_id": session_id}


def error(message: str, code: int, session_id: str) -> JsonObject:
    """Something went wrong; the connection stays open."""
    return {"type": "error", "message": message, "code": code, "session_id": session_id}


def _word(word: Word) -> JsonObject:
    return {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}


def _text(message: JsonObject, name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} must be a string")
    return value


def _optional_text(message: JsonObject, name: str) -> str | None:
    return None if message.get(name) is None else _text(message, name)


def _object(message: JsonObject, name: str) -> JsonObject:
    value = message.get(name)
    if not isinstance(value, dict):
        raise ProtocolError(f"{name} must be an object")
    return value


def _sample_rate(message: JsonObject) -> int:
    value = message.get("sample_rate")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 6:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError("sample_rate must be a whole number of hertz")
    if not MIN_SAMPLE_RATE <= value <= MAX_SAMPLE_RATE:
        raise ProtocolError(f"sample_rate must be {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} hertz")
    return value


def _check_encoding(message: JsonObject) -> None:
    if message.get("encoding", ENCODING) != ENCODING:
        raise ProtocolError(f"encoding must be {ENCODING}")
