"""Print the matrix: ``PYTHONPATH=tests python -m matrix``."""

from __future__ import annotations

from collections import Counter

from matrix.cells import Cell, every
from matrix.vocabulary import Consumer, Empty, Expected, Fault, Place, Way


def told(cell: Cell) -> str:
    """One cell in a line."""
    held = cell.held
    if isinstance(held, Empty):
        return f"- {held}"
    error = "goes on" if held.error is None else held.error.__name__
    details = (held.phase, held.code, held.ending, "and recovers" if held.recovers else None)
    return ", ".join([error, *(str(detail) for detail in details if detail is not None)])


def main() -> None:
    cells = list(every())
    for cell in cells:
        print(f"{cell!s:48} {told(cell)}")  # noqa: T201
    full = [cell for cell in cells if isinstance(cell.held, Expected)]
    empty = Counter(cell.held for cell in cells if isinstance(cell.held, Empty))
    print(f"\n{len(full)} cells are run, {len(cells) - len(full)} are empty:")  # noqa: T201
    for reason, count in empty.most_common():
        print(f"{count:6} {reason}")  # noqa: T201
    for side, values in (
        ("consumer", Consumer),
        ("place", Place),
        ("fault", Fault),
        ("way", Way),
    ):
        counts = Counter(getattr(cell, side) for cell in full)
        print(f"by {side}: " + ", ".join(f"{v} {counts[v]}" for v in values))  # noqa: T201


if __name__ == "__main__":
    main()
