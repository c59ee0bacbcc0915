"""What connections use: seconds of audio and characters of text, by the ids that were sent."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from agent_conn._identity import AgentIdentity

MAX_CALLERS = 10_000
"""Callers that a meter tells apart; it takes about 4 MB for them."""

_BYTES_PER_SAMPLE = 2
_ENCODING = "pcm_s16le"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one caller has used of speech-to-text and text-to-speech."""

    job_id: str | None = None
    room_id: str | None = None
    agent_id: str | None = None
    audio_in: float = 0.0
    """Seconds of audio that were sent to be recognised."""
    characters: int = 0
    """Characters of text that were sent to be spoken."""
    audio_out: float = 0.0
    """Seconds of speech that came back."""


class UsageMeter:
    """Counts what connections use, by the ids that each of them was opened with.

    One meter serves many connections, also of several threads: pass it as ``usage=``. It reads
    the messages of LiveKit's inference protocol for ``/stt`` and ``/tts``. Whoever speaks
    another protocol calls ``add``. A connection counts what it sent and what its pump received,
    so that what was in flight when it was lost is counted by the sender alone.

    It tells the last 10,000 callers apart. What earlier ones used is counted under no ids.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[AgentIdentity, tuple[float, int, float]] = {}

    def __repr__(self) -> str:
        return f"<UsageMeter of {len(self._used)} callers>"

    @property
    def usage(self) -> tuple[Usage, ...]:
        """What each caller has used, the one that was counted last at the end."""
        with self._lock:
            used = tuple(self._used.items())
        return tuple(
            Usage(caller.job_id, caller.room_id, caller.agent_id, *counts)
            for caller, counts in used
        )

    def add(
        self,
        caller: AgentIdentity,
        *,
        audio_in: float = 0.0,
        characters: int = 0,
        audio_out: float = 0.0,
    ) -> None:
        """Count what ``caller`` has used in addition; audio in seconds."""
        with self._lock:
            if caller not in self._used and len(self._used) >= MAX_CALLERS:
                self._forget_oldest()
            self._count(caller, (audio_in, characters, audio_out))

    def _count(self, caller: AgentIdentity, more: tuple[float, int, float]) -> None:
        # Put in anew, so that the caller that has been quiet for longest stands first.
        audio_in, characters, audio_out = self._used.pop(caller, (0.0, 0, 0.0))
        self._used[caller] = (audio_in + more[0], characters + more[1], audio_out + more[2])

    def _forget_oldest(self) -> None:
        nobody = AgentIdentity()
        oldest = next(caller for caller in self._used if caller != nobody)
        self._count(nobody, self._used.pop(oldest))


class MeteredMessages:
    """Counts the messages of one connection in LiveKit's inference protocol."""

    def __init__(self, meter: UsageMeter, caller: AgentIdentity) -> None:
        self._meter = meter
        self._caller = caller
        self._bytes_per_second: int | None = None

    def sent(self, text: str) -> None:
        """Count a message that was sent."""
        message = _parse(text)
        match message.get("type"):
            case "session.create":
                self._begin(message)
            case "input_audio":
                self._meter.add(self._caller, audio_in=self._seconds(message))
            case "input_transcript":
                spoken = message.get("transcript")
                if isinstance(spoken, str):
                    self._meter.add(self._caller, characters=len(spoken))

    def received(self, text: str) -> None:
        """Count a message that was received."""
        message = _parse(text)
        if message.get("type") == "output_audio":
            self._meter.add(self._caller, audio_out=self._seconds(message))

    def _begin(self, message: dict[str, Any]) -> None:
        """Note the format of the audio, which stands in ``settings`` for speech-to-text alone."""
        settings = message.get("settings")
        audio = settings if isinstance(settings, dict) else message
        rate = str(audio.get("sample_rate", ""))
        known = audio.get("encoding", _ENCODING) == _ENCODING and rate.isdecimal() and int(rate) > 0
        if known and self._bytes_per_second is None:
            self._bytes_per_second = int(rate) * _BYTES_PER_SAMPLE

    def _seconds(self, message: dict[str, Any]) -> float:
        audio = message.get("audio")
        if not isinstance(audio, str) or self._bytes_per_second is None:
            return 0.0
        return (len(audio) * 3 // 4 - audio.count("=", -2)) / self._bytes_per_second


def _parse(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
