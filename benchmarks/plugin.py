"""What the pytest plugin costs a run that does not use it, in milliseconds of CPU time.

    python benchmarks/plugin.py

Each run is `pytest` on one empty test with no other plugin, without this one and with it in turn.
The median of each kind is printed, and the median of the differences of each pair, which is at
most 15 ms. CPU time is what an idle machine takes, and busy neighbours change it little.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MOST_MILLISECONDS = 15
WITH_IT = ("-p", "agent_conn._pytest_plugin")


def milliseconds_of_a_run(project: str, options: tuple[str, ...]) -> float:
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", *options]
    before = cpu_seconds_of_children()
    subprocess.run(command, cwd=project, env=alone, capture_output=True, check=True)  # noqa: S603
    return (cpu_seconds_of_children() - before) * 1e3


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
