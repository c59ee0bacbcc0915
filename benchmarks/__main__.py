"""``python -m benchmarks``: every benchmark, its table and its plot."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    endings,
    endpoints,
    fanout,
    importing,
    memory,
    messages,
    opening,
    pool,
    predial,
    recovery,
    stage,
    storm,
)
from benchmarks.far import ROOT
from benchmarks.line import missing
from benchmarks.loops import add_loop_option
from benchmarks.measurement import Measurement
from benchmarks.peers import PEERS, version
from benchmarks.picture import put_pictures_into
from benchmarks.plots import plot
from benchmarks.render import as_document, as_text, put_into
from benchmarks.results import Run, from_json

RESULTS, FIGURES = ROOT / "benchmarks" / "results.json", ROOT / "docs" / "figures.md"
MEASUREMENTS = {
    module.MEASUREMENT.name: module.MEASUREMENT
    for module in (
        predial,
        endpoints,
        opening,
        memory,
        messages,
        recovery,
        endings,
        pool,
        fanout,
        storm,
        importing,
    )
}


def machine(loop: str) -> dict[str, str]:
    """What the figures depend on."""
    about = {
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "event loop": loop,
    }
    return about | {name: version(name) or "not installed" for name in PEERS}


def measure(chosen: Sequence[Measurement], *, quick: bool, loop: str, out: Path) -> Run:
    """Run the benchmarks one after another; what is found is written as it comes."""
    console = Console(stderr=True)
    lacks = missing()
    if lacks is not None:
        console.print(f"Without {lacks} there is no long line here: that is not measured.")
    run = Run(dt.datetime.now(tz=dt.UTC).date().isoformat(), quick, machine(loop))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for number, measurement in enumerate(chosen, 1):
            name = f"{number}/{len(chosen)} {measurement.about}"
            task = progress.add_task(name, total=1.0)

            def show(done: float, task: object = task) -> None:
                progress.update(task, completed=done)  # type: ignore[arg-type]

            result = stage.run(measurement, quick=quick, loop=loop, show=show)
            show(1.0)
            run.results.append(result)
            write(run, out)
            plot(result, out / f"{result.name}.svg")
    return run


def write(run: Run, out: Path) -> None:
    (out / "results.json").write_text(run.to_json(), encoding="utf-8")
    (out / "results.md").write_text(as_document(run), encoding="utf-8")


def put_into_docs(results: Path) -> None:
    """Make ``results`` the ones that the documentation shows."""
    if results.resolve() != RESULTS:
        shutil.copyfile(results, RESULTS)
    run = from_json(RESULTS.read_text(encoding="utf-8"))
    put_into(FIGURES, run)
    put_pictures_into(FIGURES.parent / "assets", run.results)


def main() -> int:
    """Return 0, or 1 where a step failed or a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS)
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    add_loop_option(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-results"),
        metavar="DIR",
        help="where results.json, results.md and the plots go",
    )
    parser.add_argument(
        "--docs",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="RESULTS",
        help="measure nothing; show RESULTS in docs/figures.md, and keep them",
    )
    options = parser.parse_args()
    if options.docs is not None:
        put_into_docs(options.docs)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [MEASUREMENTS[name] for name in options.only or MEASUREMENTS]
    # A line and its processes are taken down on the way out, which SIGTERM would not take.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run = measure(chosen, quick=options.quick, loop=options.loop, out=options.out)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except stage.StepFailed as failure:
        sys.exit(str(failure))
    print(*map(as_text, run.results), sep="\n\n")
    print(f"\nAs Markdown, JSON and plots: {options.out}")
    return 1 if run.missed else 0


if __name__ == "__main__":
    sys.exit(main())
