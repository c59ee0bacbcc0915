"""Runs a benchmark's steps, each with its line and its far end, and passes on their progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.far import ROOT, far_process
from benchmarks.line import missing, open_line
from benchmarks.measurement import Measurement, Outcomes, Step
from benchmarks.results import Result


class StepFailed(Exception):
    """A step ended without an outcome."""


def run(
    measurement: Measurement, *, quick: bool, loop: str, show: Callable[[float], None]
) -> Result:
    """Measure on ``loop``; ``show`` takes how much is done, from 0 to 1.

    Raises:
        StepFailed: a step failed; what it said is on stderr.
    """
    steps = measurement.steps(quick=quick)
    outcomes: Outcomes = []
    for number, step in enumerate(steps):

        def tell(done: float, before: int = number) -> None:
            show((before + done) / len(steps))

        tell(0.0)
        outcomes.append((step, _take(step, measurement.module, loop, tell)))
    return measurement.combine(outcomes)


def _take(step: Step, module: str, loop: str, tell: Callable[[float], None]) -> Any:  # noqa: ANN401  (JSON)
    if step.round_trip and missing():
        return None
    with (
        open_line(step.round_trip) as line,
        far_process(tls=step.tls, host=line.far_address, inside=line.far) as port,
    ):
        where = {
            "WAN_FAR": line.far_address,
            "WAN_PORT": str(port),
            "WAN_RTT": str(line.round_trip),
            "WAN_LOOP": loop,
        }
        command = [*line.near, sys.executable, "-m", "benchmarks.near", module]
        near = subprocess.Popen(  # noqa: S603  (ours)
            [*command, json.dumps(step.arguments)],
            cwd=ROOT,
            env=os.environ | where,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for this process, which ends that one.
            start_new_session=True,
        )
        with near:
            try:
                return _listen(near, module, tell)
            finally:
                near.terminate()


def _listen(near: subprocess.Popen[str], module: str, tell: Callable[[float], None]) -> object:
    assert near.stdout is not None
    for line in near.stdout:
        said = json.loads(line)
        if "found" in said:
            near.wait()
            found: object = said["found"]
            return found
        tell(said["done"])
    raise StepFailed(f"{module} ended with status {near.wait()}")
