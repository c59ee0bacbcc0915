"""Real speech on this machine, without a network: espeak-ng speaks, pocketsphinx listens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import TracebackType
from typing import Self

from agent_conn._checks import check_count
from agent_conn.gateway.speech.engine import SpokenAudio, Word
from agent_conn.gateway.speech.espeak import Voice, speak
from agent_conn.gateway.speech.resample import resample
from agent_conn.gateway.speech.sphinx import SphinxPool, SphinxRecognizer
from agent_conn.gateway.speech.threads import EngineThreads

DEFAULT_VOICE = Voice()
BYTES_PER_SAMPLE = 2
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class LocalSpeech:
    """Speaks with espeak-ng and recognises English with pocketsphinx.

    Each recognition runs in a process of its own, so that the event loop stays free;
    `warm_recognizers` idle ones are kept. `voice` is espeak's voice, such as ``en-us`` or
    ``en-us+f3``, with its speed and pitch. Close it after the gateway, or use it as a context
    manager. Needs ``agent-conn[speech]``; the first use raises
    `SpeechUnavailable` where a package is missing.

    Raises:
        ConfigurationError: `warm_recognizers` is negative or `threads` below 1.
    """

    def __init__(
        self, *, voice: Voice = DEFAULT_VOICE, warm_recognizers: int = 2, threads: int = 8
    ) -> None:
        check_count("warm_recognizers", warm_recognizers, least=0)
        check_count("threads", threads)
        self._voice = voice
        self._pool = SphinxPool(warm_recognizers)
        self._threads = EngineThreads(threads)

    def recognizer(self, sample_rate: int, language: str | None = None) -> SphinxRecognizer:
        """Return a recogniser of English; `language` is only carried into its transcripts."""
        return SphinxRecognizer(self._pool, self._threads, sample_rate, language or "en")

    async def warm_up(self) -> None:
        """Start one recogniser and espeak ahead of their first use, which takes a second.

        Raises:
            SpeechUnavailable: a package is not installed.
            SpeechFailed: the recogniser or espeak-ng does not start.
        """
        await self._threads.run(speak, "ready", self._voice)
        await self._threads.run(self._pool.warm_up)

    async def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        """Speak sentence by sentence at `sample_rate` hertz.

        `voice` is one of espeak's; any other name is taken for a voice of another service
        and the engine's own is used. `language` is unused.

        Raises:
            SpeechUnavailable: espeakng-loader is not installed.
            SpeechFailed: espeak-ng fails.
        """
        del language  # The voice has one.
        passed = 0.0
        for sentence in SENTENCE_END.split(text.strip()):
            piece = await self._threads.run(self._speak, sentence, sample_rate, voice)
            yield SpokenAudio(piece.pcm, _later(piece.words, passed))
            passed += len(piece.pcm) / BYTES_PER_SAMPLE / sample_rate

    async def aclose(self) -> None:
        """End the recognisers' processes and the threads. Idempotent."""
        self._threads.begin_close()
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _speak(self, text: str, sample_rate: int, voice: str | None) -> SpokenAudio:
        chosen = self._voice
        if voice is not None and voice.startswith("en"):
            chosen = replace(chosen, name=voice)
        spoken, rate = speak(text, chosen)
        return SpokenAudio(resample(spoken.pcm, rate, sample_rate), spoken.words)

    def _close(self) -> None:
        self._pool.close()
        self._threads.join()


def _later(words: tuple[Word, ...], seconds: float) -> tuple[Word, ...]:
    return tuple(
        replace(word, start=word.start + seconds, end=word.end + seconds) for word in words
    )
