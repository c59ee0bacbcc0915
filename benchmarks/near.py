"""One step of a benchmark: tells its progress and its outcome, as lines of JSON on stdout.

    python -m benchmarks.near MODULE ARGUMENTS

The environment names the far end, as in ``benchmarks/far.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
from typing import Any

from benchmarks.far import raise_descriptor_limit, reach
from benchmarks.loops import run_on_loop


def say(what: dict[str, object]) -> None:
    print(json.dumps(what), file=sys.__stdout__, flush=True)


def tell(done: float) -> None:
    say({"done": done})


async def run(module: str, arguments: dict[str, Any]) -> object:
    async with reach() as far:
        found: object = await importlib.import_module(module).measure(far, tell, **arguments)
        return found


def main() -> None:
    # The neighbours log what they meet, one of them as soon as it is imported.
    logging.disable(logging.CRITICAL)
    os.environ["LOGURU_AUTOINIT"] = "0"
    raise_descriptor_limit()
    module, arguments = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):
        say({"found": run_on_loop(run(module, json.loads(arguments)))})


if __name__ == "__main__":
    main()
