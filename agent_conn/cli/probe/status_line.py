"""How far a long probe has come, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_SECONDS = 5.0
"""Where there is no terminal: seconds between two lines."""


class StatusLine:
    """A live bar on a terminal, and elsewhere a line now and then; a short probe shows none."""

    def __init__(
        self, console: Console, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._total = total
        self._clock = clock
        self._told_at = clock()
        self._bar = Progress(
            TextColumn("probing"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("probing", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def done(self, count: int) -> None:
        """Tell that `count` connections are done."""
        self._bar.update(self._task, completed=count)
        now = self._clock()
        if not self._console.is_terminal and now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            self._console.print(f"probing: {count} of {self._total}")
