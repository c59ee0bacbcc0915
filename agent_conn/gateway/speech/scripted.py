"""A deterministic speech engine without dependencies, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache
from math import pi, sin

from agent_conn._checks import check_count
from agent_conn.errors import ConfigurationError
from agent_conn.gateway.speech.engine import SpokenAudio, Transcript, Word
from agent_conn.gateway.speech.resample import encode_samples

SECONDS_PER_CHARACTER = 0.06
TONE_HERTZ = 440
BYTES_PER_SAMPLE = 2


class ScriptedEngine:
    """Hears the given transcripts in turn and speaks a tone, the same on every run.

    Each recogniser starts at the first transcript. Every `interim_bytes` of audio reveal one
    more word as an interim; a finalize gives the whole transcript as a final, if any audio
    came since the last one. Speech is `audio` when given, else a 440 Hz tone of 60 ms for
    each character of the text.

    Raises:
        ConfigurationError: `transcripts` is empty, or `interim_bytes` is not positive.
    """

    def __init__(
        self,
        transcripts: Sequence[str] = ("hello world",),
        *,
        audio: bytes | None = None,
        interim_bytes: int = 3200,
        language: str = "en",
    ) -> None:
        if not transcripts:
            raise ConfigurationError("transcripts must have at least one text, got none")
        check_count("interim_bytes", interim_bytes)
        self._transcripts = tuple(transcripts)
        self._audio = audio
        self._interim_bytes = interim_bytes
        self._language = language

    def recognizer(self, sample_rate: int, language: str | None = None) -> ScriptedRecognizer:
        """Return a recogniser that starts at the first transcript."""
        return ScriptedRecognizer(
            self._transcripts, sample_rate, self._interim_bytes, language or self._language
        )

    async def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        """Give the whole of the scripted audio in one piece; `voice` and `language` are unused."""
        del voice, language  # A tone has neither.
        pcm = self._audio
        if pcm is None:
            pcm = _tone(round(len(text) * SECONDS_PER_CHARACTER * sample_rate), sample_rate)
        yield SpokenAudio(pcm, spread_words(text, len(pcm) / BYTES_PER_SAMPLE / sample_rate))


class ScriptedRecognizer:
    """The recogniser of a `ScriptedEngine`; it counts bytes and hears the script."""

    def __init__(
        self, transcripts: tuple[str, ...], sample_rate: int, interim_bytes: int, language: str
    ) -> None:
        self._transcripts = transcripts
        self._bytes_per_second = sample_rate * BYTES_PER_SAMPLE
        self._interim_bytes = interim_bytes
        self._language = language
        self._finals = 0
        self._utterance_start = 0
        self._received = 0
        self._shown = 0

    async def feed(self, pcm: bytes) -> list[Transcript]:
        """Count the audio; give an interim when it reveals one more word."""
        self._received += len(pcm)
        words = self._words()
        heard = (self._received - self._utterance_start) // self._interim_bytes
        revealed = min(heard, len(words))
        if revealed <= self._shown:
            return []
        self._shown = revealed
        return [self._transcript(" ".join(words[:revealed]), final=False)]

    async def finalize(self) -> list[Transcript]:
        """Give the scripted final, or nothing without audio since the last one."""
        if self._received == self._utterance_start:
            return []
        transcript = self._transcript(" ".join(self._words()), final=True)
        self._finals += 1
        self._utterance_start = self._received
        self._shown = 0
        return [transcript]

    async def aclose(self) -> None:
        """Nothing is held."""

    def _words(self) -> list[str]:
        return self._transcripts[self._finals % len(self._transcripts)].split()

    def _transcript(self, text: str, *, final: bool) -> Transcript:
        start = self._utterance_start / self._bytes_per_second
        duration = (self._received - self._utterance_start) / self._bytes_per_second
        words = tuple(
            Word(word.text, start + word.start, start + word.end)
            for word in spread_words(text, duration)
        )
        return Transcript(text, final, start, duration, 1.0, words, self._language)


def spread_words(text: str, duration: float) -> tuple[Word, ...]:
    """Give each word of `text` a share of `duration` seconds by its length."""
    words = text.split()
    characters = sum(map(len, words))
    placed: list[Word] = []
    passed = 0
    for word in words:
        start = duration * passed / characters
        passed += len(word)
        placed.append(Word(word, start, duration * passed / characters))
    return tuple(placed)


@lru_cache(maxsize=32)
def _tone(samples: int, sample_rate: int) -> bytes:
    step = 2 * pi * TONE_HERTZ / sample_rate
    return encode_samples([round(8000 * sin(step * index)) for index in range(samples)])
