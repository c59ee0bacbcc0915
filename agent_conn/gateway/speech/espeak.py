"""Speech by espeak-ng, called through ctypes."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module

from agent_conn.gateway.speech.engine import SpeechFailed, SpeechUnavailable, SpokenAudio, Word

# From espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
PARAMETER_RATE = 1
PARAMETER_PITCH = 3
EVENT_LIST_TERMINATED = 0
EVENT_WORD = 1

BYTES_PER_SAMPLE = 2


class _EventId(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Voice:
    """How to speak: espeak's voice name, words per minute, and pitch from 0 to 99.

    Of some 70 variants at several speeds and pitches, the default is the one that pocketsphinx
    understands best: 15 of 25 everyday sentences word for word, against 5 of plain en-us.
    """

    name: str = "en-us+edward"
    words_per_minute: int = 160
    pitch: int = 45


class Espeak:
    """The espeak-ng library; one in a process, one utterance at a time. Its calls block.

    Raises:
        SpeechUnavailable: espeakng-loader is not installed.
        SpeechFailed: the library does not start.
    """

    def __init__(self) -> None:
        try:
            loader = import_module("espeakng_loader")
        except ImportError:
            raise SpeechUnavailable(
                "speech needs espeakng-loader: pip install 'agent-conn[speech]'",
                name="espeakng_loader",
            ) from None
        self._library = ctypes.CDLL(loader.get_library_path())
        data_path = str(loader.get_data_path()).encode()
        self.sample_rate: int = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise SpeechFailed("espeak-ng could not start")
        self._pcm = bytearray()
        self._marks: list[tuple[int, int, float]] = []
        # The library keeps a pointer to it.
        self._callback = _Callback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: Voice) -> SpokenAudio:
        """Return `text` spoken at `sample_rate`, with the words' times.

        Raises:
            SpeechFailed: there is no such voice, or the library fails.
        """
        self._pcm.clear()
        self._marks.clear()
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise SpeechFailed("espeak-ng does not have this voice: see espeak-ng --voices")
        self._library.espeak_SetParameter(PARAMETER_RATE, voice.words_per_minute, 0)
        self._library.espeak_SetParameter(PARAMETER_PITCH, voice.pitch, 0)
        encoded = text.replace("\0", " ").encode("utf-8", "replace") + b"\0"
        failed = self._library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, CHARS_UTF8, None, None
        )
        if failed or self._library.espeak_Synchronize():
            raise SpeechFailed("espeak-ng could not speak the text")
        pcm = bytes(self._pcm)
        return SpokenAudio(pcm, self._words(text, len(pcm) / BYTES_PER_SAMPLE / self.sample_rate))

    def _collect(self, wave: int | None, samples: int, events: Sequence[_Event]) -> int:
        if wave and samples > 0:
            self._pcm += ctypes.string_at(wave, samples * BYTES_PER_SAMPLE)
        index = 0
        while events[index].type != EVENT_LIST_TERMINATED:
            event = events[index]
            if event.type == EVENT_WORD:
                mark = (event.text_position - 1, event.length, event.audio_position / 1000)
                self._marks.append(mark)
            index += 1
        return 0

    def _words(self, text: str, duration: float) -> tuple[Word, ...]:
        words: list[Word] = []
        for position, length, start in self._marks:
            if words:
                words[-1] = replace(words[-1], end=start)
            words.append(Word(text[position : position + length], start, duration))
        return tuple(words)


_lock = threading.Lock()


@cache
def _library() -> Espeak:
    return Espeak()


def speak(text: str, voice: Voice) -> tuple[SpokenAudio, int]:
    """Speak with the process's one espeak-ng; return the audio and its sample rate in hertz.

    Raises:
        SpeechUnavailable: espeakng-loader is not installed.
        SpeechFailed: there is no such voice, or the library fails.
    """
    with _lock:
        library = _library()
        return library.speak(text, voice), library.sample_rate
