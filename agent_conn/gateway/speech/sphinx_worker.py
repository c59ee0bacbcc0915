"""The recogniser's process: pocketsphinx behind a pipe.

pocketsphinx holds the interpreter's lock while it decodes, for half a second at times, so
that no thread beside it keeps an event loop alive; hence a process. It is run as a script
and imports nothing of this package.

A request is a letter, the payload's length (4 bytes, little-endian) and the payload: ``A``
with pcm_s16le mono at 16 kHz, ``F`` to finalize, ``R`` to start afresh. Each is answered by a
length and a JSON list of transcripts.
"""

from __future__ import annotations

import json
import struct
import sys
from importlib import import_module
from typing import Any, BinaryIO

SAMPLE_RATE = 16_000
BYTES_PER_SECOND = 2 * SAMPLE_RATE
DECODER_FRAMES_PER_SECOND = 100
PAUSE_SECONDS = 0.7
PRE_ROLL_SECONDS = 0.3
"""Audio kept from before the first speech frame; the decoder wants to begin in silence."""
TAIL_SECONDS = 0.3
MIN_SPEECH_FRAMES = 3
VAD_MODE = 1
CEPSTRAL_MEANS = "60.57,16.92,-8.38,24.62,-17.17,16.46,-12.49,-6.48,7.30,-20.46,18.21,-11.19,-0.58"
"""Measured from the default voice; with the model's own, the first utterance of a session is
understood less well. It adapts to other voices within a few seconds."""
HEADER = struct.Struct("<cI")
LENGTH = struct.Struct("<I")


class Ears:
    """Cuts audio into utterances at pauses and decodes them as they come."""

    def __init__(self) -> None:
        sphinx = import_module("pocketsphinx")
        self._decoder = sphinx.Decoder(
            loglevel="FATAL", samprate=SAMPLE_RATE, cmninit=CEPSTRAL_MEANS
        )
        self._means = self._decoder.get_cmn(update=False)
        self._vad = sphinx.Vad(mode=VAD_MODE, sample_rate=SAMPLE_RATE)
        self._frame_bytes = self._vad.frame_bytes
        self._in_utterance = False
        self.reset()

    def reset(self) -> None:
        """Forget everything heard."""
        if self._in_utterance:
            self._decoder.end_utt()
        self._decoder.set_cmn(self._means)
        self._in_utterance = False
        self._pending = b""
        self._pre_roll = b""
        self._speech_run = 0
        self._silence_bytes = 0
        self._heard_bytes = 0
        self._utterance_start = 0.0
        self._utterance_bytes = 0
        self._last_text = ""

    def feed(self, pcm: bytes) -> list[dict[str, Any]]:
        """Take audio of any length; return the finals it ended and the interim it changed."""
        self._pending += pcm
        results: list[dict[str, Any]] = []
        while len(self._pending) >= self._frame_bytes:
            frame = self._pending[: self._frame_bytes]
            self._pending = self._pending[self._frame_bytes :]
            self._take(frame)
            if self._in_utterance and self._silence_bytes >= PAUSE_SECONDS * BYTES_PER_SECOND:
                results += self._end()
        return results + self._interim()

    def finalize(self) -> list[dict[str, Any]]:
        """End the utterance under way; return its final, if anything was heard."""
        if not self._in_utterance:
            return []
        self._decode(self._pending)
        self._heard_bytes += len(self._pending)
        self._pending = b""
        return self._end()

    def _take(self, frame: bytes) -> None:
        self._heard_bytes += len(frame)
        speech = self._vad.is_speech(frame)
        if self._in_utterance:
            self._silence_bytes = 0 if speech else self._silence_bytes + len(frame)
            self._decode(frame)
            return
        self._pre_roll += frame
        self._speech_run = self._speech_run + 1 if speech else 0
        if self._speech_run >= MIN_SPEECH_FRAMES:
            self._begin()
        else:
            keep = int(PRE_ROLL_SECONDS * BYTES_PER_SECOND) + self._speech_run * len(frame)
            self._pre_roll = self._pre_roll[-keep:]

    def _begin(self) -> None:
        wanted = int(PRE_ROLL_SECONDS * BYTES_PER_SECOND) + self._speech_run * self._frame_bytes
        padding = bytes(max(0, wanted - len(self._pre_roll)))
        began = self._heard_bytes - len(self._pre_roll) - len(padding)
        self._utterance_start = began / BYTES_PER_SECOND
        self._utterance_bytes = 0
        self._silence_bytes = 0
        self._last_text = ""
        self._decoder.start_utt()
        self._in_utterance = True
        self._decode(padding + self._pre_roll)
        self._pre_roll = b""
        self._speech_run = 0

    def _decode(self, pcm: bytes) -> None:
        if pcm:
            self._decoder.process_raw(pcm)
            self._utterance_bytes += len(pcm)

    def _end(self) -> list[dict[str, Any]]:
        self._decode(bytes(int(TAIL_SECONDS * BYTES_PER_SECOND)))
        self._decoder.end_utt()
        self._in_utterance = False
        result = self._transcript(final=True)
        return [result] if result["text"] else []

    def _interim(self) -> list[dict[str, Any]]:
        if not self._in_utterance:
            return []
        hypothesis = self._decoder.hyp()
        text = hypothesis.hypstr if hypothesis else ""
        if not text or text == self._last_text:
            return []
        self._last_text = text
        return [self._transcript(final=False)]

    def _transcript(self, *, final: bool) -> dict[str, Any]:
        words = []
        for segment in self._decoder.seg() or ():
            word = segment.word.partition("(")[0]
            if not word or word[0] in "<[":
                continue
            start = self._utterance_start + segment.start_frame / DECODER_FRAMES_PER_SECOND
            end = self._utterance_start + (segment.end_frame + 1) / DECODER_FRAMES_PER_SECOND
            words.append([word, max(0.0, start), end, min(1.0, segment.prob)])
        return {"text": " ".join(word[0] for word in words), "final": final, "words": words}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until their end."""
    ears = Ears()
    while header := requests.read(HEADER.size):
        operation, length = HEADER.unpack(header)
        payload = requests.read(length)
        if operation == b"A":
            results = ears.feed(payload)
        elif operation == b"F":
            results = ears.finalize()
        else:
            ears.reset()
            results = []
        answer = json.dumps(results).encode()
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
