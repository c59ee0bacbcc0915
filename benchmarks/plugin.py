"""What the pytest plugin costs a run that does not use it, in milliseconds.

    python benchmarks/plugin.py

Each run is `pytest` on one empty test with no other plugin, without this one and with it in turn.
The median of each kind is printed, and the median of the differences of each pair, which is at
most 15 ms.
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

MOST_MILLISECONDS = 15
WITH_IT = ("-p", "pytest_agent_conn")


def milliseconds_of_a_run(project: str, options: tuple[str, ...]) -> float:
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", *options]
    started = time.perf_counter()
    subprocess.run(command, cwd=project, env=alone, capture_output=True, check=True)  # noqa: S603
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as project:
        Path(project, "test_nothing.py").write_text("def test_nothing(): pass\n")
        for options in ((), WITH_IT):
            milliseconds_of_a_run(project, options)
        pairs = [
            (milliseconds_of_a_run(project, ()), milliseconds_of_a_run(project, WITH_IT))
            for _ in range(rounds)
        ]
    added = statistics.median(having - lacking for lacking, having in pairs)
    print(f"without it {statistics.median(lacking for lacking, _ in pairs):6.0f} ms")
    print(f"with it    {statistics.median(having for _, having in pairs):6.0f} ms")
    print(f"added      {added:6.1f} ms, at most {MOST_MILLISECONDS}")
    if added > MOST_MILLISECONDS:
        sys.exit(1)


if __name__ == "__main__":
    main()
