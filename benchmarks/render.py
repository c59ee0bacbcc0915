"""Results as text, as Markdown, and as the documentation's page of figures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import Cell, Column, Result, Run, Target

BEGIN, END = "<!-- figures: python -m benchmarks --docs -->", "<!-- end of figures -->"
NOT_MEASURED = "not measured"


def shown(cell: Cell, column: Column) -> str:
    """A cell as a reader sees it."""
    if cell is None:
        return NOT_MEASURED
    return cell if isinstance(cell, str) else f"{cell:,.{column.digits}f}"


def verdict(target: Target) -> str:
    """A target in one line, with what was found."""
    if target.figure is None or target.limit is None:
        return f"{target.claim}: {NOT_MEASURED}"
    word = "holds" if target.holds else "MISSED"
    return f"{target.claim}: {word} ({target.figure:,.4g}, limit {target.limit:,.4g})"


def as_text(result: Result) -> str:
    """A table for a terminal, with what it promises below."""
    head = ["", *(column.title for column in result.columns)]
    rows = [head, *_rows(result)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([result.title, *lines, *map(verdict, result.targets)])


def as_markdown(result: Result) -> str:
    """A section with its command, a table, and what it promises below."""
    head = ["", *(column.title for column in result.columns)]
    rule = ["---", *("---:" for _ in result.columns)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *_rows(result)))
    promises = "\n".join(f"- {verdict(target)}" for target in result.targets)
    parts = (
        f"## {result.title}",
        f"`python -m benchmarks --only {result.name}`. {result.note}",
        table.replace("|  |", "| |"),
        promises,
    )
    return "\n\n".join(part for part in parts if part)


def as_document(run: Run) -> str:
    """All of a run as Markdown, with when and where it was."""
    machine = ", ".join(f"{what} {value}" for what, value in run.machine.items())
    kind = "A quick run, whose figures are rough" if run.quick else "Measured"
    head = f"{kind}, by `python -m benchmarks` on {run.date}: {machine}."
    return "\n\n".join([head, *map(as_markdown, run.results)]) + "\n"


def as_figures(run: Run) -> str:
    """What stands on the page of figures between its two marks, these included."""
    return f"{BEGIN}\n\n{as_document(run)}\n{END}"


def put_into(page: Path, run: Run) -> None:
    """Put the figures of ``run`` between the marks of ``page``.

    Raises:
        ValueError: it has no marks.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN), text.index(END) + len(END)
    page.write_text(text[:begin] + as_figures(run) + text[end:], encoding="utf-8")


def _rows(result: Result) -> list[list[str]]:
    return [
        [name, *(shown(cell, column) for cell, column in zip(cells, result.columns, strict=True))]
        for name, cells in result.rows.items()
    ]
