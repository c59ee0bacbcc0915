"""A result as an SVG, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Curves, Result

INCHES = (7.0, 4.0)
# Text stays text, and the same result gives the same file.
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "agent_conn"}


def plot(result: Result, path: Path) -> None:
    """Write ``result``'s curves to ``path``, or its first column as bars."""
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot(title=result.title)
    if result.curves is not None:
        _lines(axes, result.curves)
    else:
        _bars(axes, result)
    with rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _lines(axes: Axes, curves: Curves) -> None:
    for name, (xs, ys) in curves.points.items():
        axes.plot(xs, ys, marker="o" if len(xs) < 20 else "", label=name)
    axes.set(xlabel=curves.x, ylabel=curves.y)
    if "x" in curves.logarithmic:
        axes.set_xscale("log")
    if "y" in curves.logarithmic:
        axes.set_yscale("symlog")
    else:
        axes.set_ylim(bottom=0)
    axes.legend()


def _bars(axes: Axes, result: Result) -> None:
    figures = {
        name: cells[0] for name, cells in result.rows.items() if isinstance(cells[0], int | float)
    }
    bars = axes.barh(list(figures), list(figures.values()))
    axes.bar_label(bars, fmt=f"%.{result.columns[0].digits}f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(result.columns[0].title)
