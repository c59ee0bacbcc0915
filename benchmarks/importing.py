"""Time to import a connection, as a ratio to importing aiohttp alone.

    python -m benchmarks --only importing
    python benchmarks/importing.py

Each run is a fresh interpreter that times the import itself, from bytecode, as pip leaves a
package. The two take turns; each pair gives a ratio, and the median of the ratios is printed.
"""

from __future__ import annotations

import argparse
import compileall
import statistics
import subprocess
import sys
from pathlib import Path

import agent_conn
from benchmarks.far import Far
from benchmarks.measurement import Measurement, Outcomes, Step, Tell, counted
from benchmarks.opening import median_ratio
from benchmarks.render import as_text
from benchmarks.results import Cell, Column, Result

MODULES = {
    "aiohttp": "import aiohttp",
    "agent_conn": "from agent_conn import InferenceConnection",
}
PROGRAM = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def seconds_to_import(module: str) -> float:
    command = [sys.executable, "-c", PROGRAM.format(MODULES[module])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  (ours)
    return float(done.stdout)


def warm_up() -> None:
    compileall.compile_dir(Path(agent_conn.__file__).parent, quiet=1)
    for module in MODULES:
        seconds_to_import(module)


async def measure(_: Far, tell: Tell, *, pairs: int) -> list[list[float]]:
    """Pairs of seconds, aiohttp's and ours."""
    warm_up()
    return [[seconds_to_import(module) for module in MODULES] for _ in counted(pairs, tell)]


def steps(*, quick: bool) -> list[Step]:
    return [Step({"pairs": 2 if quick else 30})]


def combine(outcomes: Outcomes) -> Result:
    ((_, times),) = outcomes
    columns = list(zip(*times, strict=True))
    rows: dict[str, list[Cell]] = {
        module: [statistics.median(column) * 1e3, median_ratio(column, columns[0])]
        for module, column in zip(MODULES, columns, strict=True)
    }
    return Result(
        name="importing",
        title="Time to import",
        note="Each in a fresh interpreter, in pairs; the ratio is the median of the pairs'.",
        columns=[Column("ms", 0), Column("ratio to aiohttp")],
        rows=rows,
    )


MEASUREMENT = Measurement(__name__, "time to import", steps, combine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    warm_up()
    step = Step({"pairs": pairs})
    times = [[seconds_to_import(module) for module in MODULES] for _ in range(pairs)]
    print(as_text(combine([(step, times)])))


if __name__ == "__main__":
    main()
