"""The event loop that a benchmark runs on, which ``WAN_LOOP`` names."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Coroutine
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")

LOOPS = ("asyncio", "uvloop")


def add_loop_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loop", choices=LOOPS, default=LOOPS[0], help="whose event loop to use")


def run_on_loop(main: Coroutine[Any, Any, T], loop: str | None = None) -> T:
    """As ``asyncio.run``, on the loop that ``loop`` names, or else the environment."""
    module = import_module(loop or os.environ.get("WAN_LOOP", LOOPS[0]))
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        return runner.run(main)
