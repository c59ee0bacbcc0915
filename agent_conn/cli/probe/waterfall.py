"""The steps of opening a connection as a waterfall: each bar begins where the last one ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from agent_conn.cli.probe.findings import Findings, Outcome, Spread, Step, spread_of

_LABELS = 13
_TIMES = 9
_GAP = 2
_MARK = 2
_MIN_BARS = 10
_MAX_BARS = 60


def milliseconds(seconds: float) -> str:
    """`seconds` for a person."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def place_bars(lengths: Sequence[float], width: int) -> list[tuple[int, int]]:
    """Where each bar begins and how many columns it takes, in `width` columns; none takes 0."""
    whole = sum(lengths) or 1.0
    placed, before = [], 0.0
    for length in lengths:
        first = min(int(before / whole * width), width - 1)
        before += length
        placed.append((first, max(1, round(before / whole * width) - first)))
    return placed


def waterfall(findings: Findings, width: int, *, ascii_only: bool) -> list[Text]:
    """The lines of the waterfall of the medians, in `width` columns; none before a step began."""
    rows = _rows(findings)
    several = len(findings.attempts) > 1
    columns = ("median", "min", "max") if several else ("",)
    taken = _LABELS + len(columns) * (_TIMES + _GAP) + _GAP + _MARK
    bars = place_bars(
        [spread.median for _, spread, _ in rows], max(_MIN_BARS, min(_MAX_BARS, width - taken))
    )
    dash = "=" if ascii_only else "━"
    lines = [_line(Text(""), columns, Text(""), style="dim")] if several and rows else []
    for (step, spread, failed), (first, length) in zip(rows, bars, strict=True):
        style = "red" if failed else "cyan"
        bar = Text(" " * first + dash * length, style=style)
        if failed:
            bar.append(" x" if ascii_only else " ✗")
        label = Text(step.label, style=bar.style if failed else "")
        lines.append(_line(label, _times(spread, several=several), bar))
    if (total := findings.total()) is not None:
        lines.append(_line(Text("open"), _times(total, several=several), Text(""), style="bold"))
    return lines


def _line(label: Text, times: Iterable[str], bar: Text, style: str = "") -> Text:
    line = Text(style=style)
    line.append_text(label).append(" " * (_LABELS - len(label)))
    for time in times:
        line.append(" " * _GAP + time.rjust(_TIMES))
    line.append(" " * _GAP).append_text(bar)
    line.rstrip()
    return line


def _rows(findings: Findings) -> list[tuple[Step, Spread, bool]]:
    """Each step that was met, its spread, and whether it is where every connection failed."""
    spreads = findings.spreads()
    failures = [attempt.failure for attempt in findings.attempts if attempt.failure is not None]
    opened = findings.outcomes()[Outcome.OPEN]
    rows = []
    for step in Step:
        failed = [failure for failure in failures if failure.step is step]
        spread = spreads.get(step) or spread_of(failure.after for failure in failed)
        if spread is not None:
            rows.append((step, spread, bool(failed) and not opened))
    return rows


def _times(spread: Spread, *, several: bool) -> list[str]:
    found = (spread.median, spread.least, spread.most) if several else (spread.median,)
    return [milliseconds(seconds) for seconds in found]
