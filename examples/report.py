"""Draws a round trip while it runs, and how its connections were opened. Needs rich."""

from __future__ import annotations

import time
from collections.abc import Iterable

from audio import AudioPipe
from hearing import Heard
from rich.bar import Bar
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from stage import Room

from agent_conn import ConnectionRecord, InferenceConnection

BAR_WIDTH = 44
PHASES = {
    "waited": "yellow",
    "pre_dial": "cyan",
    "minted": "magenta",
    "dialed": "blue",
    "upgraded": "green",
    "opened": "white",
}


class Scene:
    """What goes on in a round trip; rich draws it as it is at that moment."""

    def __init__(self, room: Room, audio: AudioPipe) -> None:
        self.finals: list[str] = []
        self.connections: list[tuple[str, InferenceConnection]] = []
        self._cut_at: dict[str, float] = {}
        self._interim = ""
        self._room = room
        self._audio = audio

    def hear(self, transcript: Heard) -> None:
        """Take what was heard."""
        self._interim = "" if transcript.final else transcript.text
        if transcript.final:
            self.finals.append(transcript.text)

    def cut(self, service: str) -> bool:
        """Note that `service` is cut off now; whether it is so for the first time."""
        first = service not in self._cut_at
        self._cut_at.setdefault(service, time.monotonic())
        return first

    def use(self, service: str, connection: InferenceConnection) -> None:
        """Note that `service` flows on `connection` from now on."""
        name = service
        if service in self._cut_at:
            silent = time.monotonic() - self._cut_at[service]
            name = f"{service}, {silent * 1000:.0f} ms after it was cut off"
        self.connections.append((name, connection))

    def __rich__(self) -> Table:
        spoken, heard = self._audio.spoken, self._audio.heard
        transcript = Text(" ".join(self.finals)).append(f" {self._interim}", style="dim")
        table = Table.grid(padding=(0, 2))
        table.add_row("room", self._room.state)
        table.add_row("spoken", f"{spoken:.2f} s")
        table.add_row("heard", f"{heard:.2f} s")
        table.add_row("", Bar(spoken or 1.0, 0.0, heard, width=BAR_WIDTH))
        table.add_row("transcript", transcript)
        return table


def print_report(connections: Iterable[tuple[str, InferenceConnection]]) -> None:
    """Print a panel for each connection, its phases drawn to the same scale."""
    records = [(name, connection.record) for name, connection in connections]
    console = Console()
    console.print()
    scale = max(_whole(record) for _, record in records)
    for name, record in records:
        console.print(Panel(Group(_facts(record), "", _waterfall(record, scale)), title=name))


def _whole(record: ConnectionRecord) -> float:
    return sum(getattr(record, phase) or 0.0 for phase in PHASES if phase != "pre_dial")


def _facts(record: ConnectionRecord) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("attribution", record.attribution.name)
    table.add_row("wait", record.wait_outcome or "")
    table.add_row("session id", record.session_id)
    table.add_row("pre-dialled", "yes" if record.pre_dialed else "no")
    return table


def _waterfall(record: ConnectionRecord, scale: float) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    sliver = scale / BAR_WIDTH / 8
    end = 0.0
    for phase, color in PHASES.items():
        seconds: float | None = getattr(record, phase)
        if seconds is None:
            continue
        # The pre-dial begins with the wait and runs beside it.
        begin = 0.0 if phase == "pre_dial" else end
        bar = Bar(scale, begin, begin + max(seconds, sliver), width=BAR_WIDTH, color=color)
        table.add_row(phase, f"{seconds * 1000:.1f} ms", bar)
        end = max(end, begin + seconds)
    return table
