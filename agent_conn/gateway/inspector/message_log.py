"""What one connection said, without its content: types and sizes, and the transcripts' text."""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

MAX_RUNS = 200
MAX_TRANSCRIPTS = 100
MAX_TEXT = 2_000
MAX_TYPE = 64
RUN_BYTES = 300
"""About how many bytes of memory a run takes."""
# Above this a message whose type does not come first is not parsed for it.
MAX_PARSED = 65_536

TYPE_FIRST = re.compile(r'\s*\{\s*"type"\s*:\s*"([A-Za-z0-9_.-]{1,64})"')

Direction: TypeAlias = Literal["in", "out"]

TRANSCRIPTS: dict[tuple[Direction, str], bool] = {
    ("in", "input_transcript"): True,
    ("out", "interim_transcript"): False,
    ("out", "final_transcript"): True,
}
"""The messages that carry text, and whether that text is final."""


@dataclass(slots=True)
class Run:
    """Messages of one type, one after another in one direction; a line of the log."""

    number: int
    direction: Direction
    type: str
    first: float
    last: float
    count: int
    size: int
    """Their payload together, in bytes."""


@dataclass(slots=True)
class TranscriptLine:
    """One text that was heard, or that is to be spoken."""

    number: int
    direction: Direction
    at: float
    text: str
    final: bool


class MessageLog:
    """The last messages of one connection and its last transcripts, both bounded."""

    def __init__(self, max_runs: int = MAX_RUNS, max_transcripts: int = MAX_TRANSCRIPTS) -> None:
        self.runs: deque[Run] = deque(maxlen=max_runs)
        self.transcripts: deque[TranscriptLine] = deque(maxlen=max_transcripts)
        self.messages_given_up: int = 0
        self.transcripts_given_up: int = 0
        self.size: int = 0
        """About how many bytes of memory it takes."""
        self._begun = 0
        self._lines = 0
        self._latest: dict[Direction, Run] = {}

    def add(self, direction: Direction, data: str | bytes, size: int, now: float) -> None:
        """Note one message; nothing of `data` is kept but a transcript's text."""
        name = message_type(data)
        run = self._latest.get(direction)
        # A run that was given up while it went on is not in the log any more.
        if run is None or run.type != name or run.number < self.runs[0].number:
            self._begin(Run(self._begun, direction, name, now, now, 1, size))
        else:
            run.last = now
            run.count += 1
            run.size += size
        final = TRANSCRIPTS.get((direction, name))
        if final is not None:
            self._hear(direction, data, now, final=final)

    def _begin(self, run: Run) -> None:
        if len(self.runs) == self.runs.maxlen:
            self.messages_given_up += self.runs[0].count
        else:
            self.size += RUN_BYTES
        self.runs.append(run)
        self._latest[run.direction] = run
        self._begun += 1

    def _hear(self, direction: Direction, data: str | bytes, now: float, *, final: bool) -> None:
        text = _parse(data).get("transcript")
        if not isinstance(text, str):
            return
        if len(text) > MAX_TEXT:
            text = text[:MAX_TEXT] + "…"
        last = self.transcripts[-1] if self.transcripts else None
        if last is not None and not last.final and last.direction == direction:
            self.size -= sys.getsizeof(self.transcripts.pop().text)
        elif len(self.transcripts) == self.transcripts.maxlen:
            self.transcripts_given_up += 1
            self.size -= sys.getsizeof(self.transcripts.popleft().text)
        self.size += sys.getsizeof(text)
        self.transcripts.append(TranscriptLine(self._lines, direction, now, text, final))
        self._lines += 1


def message_type(data: str | bytes) -> str:
    """Return the `type` of a JSON message, or what else it is: `binary`, `json` or `text`."""
    if isinstance(data, bytes):
        return "binary"
    if found := TYPE_FIRST.match(data):
        return found[1]
    message = _parse(data)
    name = message.get("type")
    if isinstance(name, str):
        return name[:MAX_TYPE]
    return "json" if message else "text"


def _parse(data: str | bytes) -> dict[str, Any]:
    if len(data) > MAX_PARSED or data.lstrip()[:1] not in ("{", b"{"):
        return {}
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
