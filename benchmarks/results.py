"""What a benchmark found, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Cell: TypeAlias = float | str | None
"""A figure, why there is none, or None where it was not measured."""


@dataclass(frozen=True)
class Column:
    """A column of a table, its figures shown with so many decimals."""

    title: str
    digits: int = 2


@dataclass(frozen=True)
class Target:
    """A figure that must not be above a limit; None where it was not measured."""

    claim: str
    figure: float | None
    limit: float | None

    @property
    def holds(self) -> bool | None:
        """Whether it is not above; None where that is not known."""
        if self.figure is None or self.limit is None:
            return None
        return self.figure <= self.limit


@dataclass(frozen=True)
class Curves:
    """Lines to plot: by name, the points' x and y."""

    x: str
    y: str
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    logarithmic: Literal["", "x", "y", "xy"] = ""


@dataclass(frozen=True)
class Result:
    """What one benchmark found.

    ``curves`` are plotted where there are any, else the first column as bars.
    """

    name: str
    title: str
    note: str
    columns: list[Column]
    rows: dict[str, list[Cell]]
    targets: list[Target] = field(default_factory=list)
    curves: Curves | None = None


@dataclass
class Run:
    """One run of the benchmarks."""

    date: str
    quick: bool
    machine: dict[str, str]
    results: list[Result] = field(default_factory=list)

    @property
    def missed(self) -> list[Target]:
        """The targets that do not hold."""
        return [one for result in self.results for one in result.targets if one.holds is False]

    def to_json(self) -> str:
        """One line for each result, which keeps its differences readable."""
        head = json.dumps({"date": self.date, "quick": self.quick, "machine": self.machine})
        results = ",\n".join(json.dumps(asdict(one)) for one in self.results)
        return f'{head[:-1]}, "results": [\n{results}\n]}}\n'


def from_json(text: str) -> Run:
    """The run that ``to_json`` wrote."""
    read: dict[str, Any] = json.loads(text)
    return Run(
        read["date"], read["quick"], read["machine"], [_result(one) for one in read["results"]]
    )


def _result(read: dict[str, Any]) -> Result:
    return Result(
        **read
        | {
            "columns": [Column(**one) for one in read["columns"]],
            "targets": [Target(**one) for one in read["targets"]],
            "curves": read["curves"] and Curves(**read["curves"]),
        }
    )
