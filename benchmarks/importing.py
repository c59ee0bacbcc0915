"""Time to import agent_conn, as a ratio to importing aiohttp alone.

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

PROGRAM = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds_to_import(module: str) -> float:
    command = [sys.executable, "-c", PROGRAM.format(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  (ours)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    compileall.compile_dir(Path(agent_conn.__file__).parent, quiet=1)
    for module in ("aiohttp", "agent_conn"):
        seconds_to_import(module)
    times = [(seconds_to_import("aiohttp"), seconds_to_import("agent_conn")) for _ in range(pairs)]
    first, second = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    print(f"import aiohttp     {first:6.1f} ms")
    print(f"import agent_conn  {second:6.1f} ms")
    ratio = statistics.median(own / peer for peer, own in times)
    print(f"ratio, median of {pairs} pairs: {ratio:.3f}")


if __name__ == "__main__":
    main()
