"""What the gateway asks of a speech engine, and the values that pass between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Word:
    """One word in a piece of speech; `start` and `end` are seconds from its beginning."""

    text: str
    start: float
    end: float
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in one utterance, so far (`final` False) or for good (`final` True).

    `start` is in seconds from the beginning of the session's audio, `duration` in seconds,
    `confidence` between 0 and 1, `language` a tag such as ``en``.
    """

    text: str
    final: bool
    start: float = 0.0
    duration: float = 0.0
    confidence: float = 1.0
    words: tuple[Word, ...] = ()
    language: str = "en"


@dataclass(frozen=True, slots=True)
class SpokenAudio:
    """A piece of synthesised speech: pcm_s16le mono, and the words spoken in it.

    The words' times are in seconds from the beginning of the whole synthesis.
    """

    pcm: bytes
    words: tuple[Word, ...] = ()


class Recognizer(Protocol):
    """Turns one session's audio into transcripts. Its calls are awaited one after another."""

    async def feed(self, pcm: bytes) -> list[Transcript]:
        """Take pcm_s16le mono; give an interim if it changed, a final after a pause."""
        ...

    async def finalize(self) -> list[Transcript]:
        """End the utterance under way; give its final, if anything was heard."""
        ...

    async def aclose(self) -> None:
        """Give back what the recogniser holds. Idempotent."""
        ...


class SpeechEngine(Protocol):
    """Recognises and speaks. One engine serves every connection of a gateway."""

    def recognizer(self, sample_rate: int, language: str | None = None) -> Recognizer:
        """Return a fresh recogniser for audio at `sample_rate` hertz."""
        ...

    def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        """Speak `text` at `sample_rate` hertz, in pieces of any size."""
        ...


class SpeechUnavailable(ImportError):
    """A package that the engine needs is not installed; the message names the extra."""


class SpeechFailed(RuntimeError):
    """The engine could not do what it was asked, such as when its process died."""
