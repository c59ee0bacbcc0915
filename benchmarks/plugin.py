"""What the pytest plugin costs a run that does not use it, as a ratio to a run without it.

    python benchmarks/plugin.py

Each run is `pytest --co` on one empty test with no other plugin. The three kinds take turns:
without the plugin, with it, and with aiohttp imported alone. The medians of the times and of
the ratios to the run without it are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = {
    "without the plugin": (),
    "with aiohttp alone": ("-p", "aiohttp"),
    "with it": ("-p", "agent_conn.testing"),
}


def seconds_to_collect(project: str, options: tuple[str, ...]) -> float:
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--co", *options]
    started = time.perf_counter()
    subprocess.run(command, cwd=project, env=alone, capture_output=True, check=True)  # noqa: S603
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as project:
        Path(project, "test_nothing.py").write_text("def test_nothing(): pass\n")
        for options in KINDS.values():
            seconds_to_collect(project, options)
        times = [
            [seconds_to_collect(project, options) for options in KINDS.values()]
            for _ in range(rounds)
        ]
    for index, kind in enumerate(KINDS):
        median = statistics.median(row[index] for row in times) * 1e3
        ratio = statistics.median(row[index] / row[0] for row in times)
        print(f"{kind:<22} {median:6.0f} ms  {ratio:.2f}")


if __name__ == "__main__":
    main()
