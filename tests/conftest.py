from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from helpers.support import SHOWN, Line, Room, open_line

import agent_conn
import agent_conn.testing
from agent_conn.gateway import Gateway


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        choices=("asyncio", "uvloop"),
        default="asyncio",
        help="whose event loop the tests run on",
    )
    parser.addoption(
        "--eager-tasks",
        action="store_true",
        help="have each task begin as it is made; from Python 3.12 on",
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    name: str = config.getoption("--loop")
    make: Callable[[], asyncio.AbstractEventLoop] = import_module(name).new_event_loop
    if not config.getoption("--eager-tasks"):
        return {name: make}

    def make_eager() -> asyncio.AbstractEventLoop:
        loop = make()
        loop.set_task_factory(vars(asyncio)["eager_task_factory"])
        return loop

    return {f"{name}-eager": make_eager}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m quick``, import no other file: that takes longer than the quick tests."""
    if config.option.markexpr != "quick" or collection_path.suffix != ".py":
        return None
    return "pytest.mark.quick" not in collection_path.read_text(encoding="utf-8") or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On uvloop leave out what runs on no event loop, or on one of its own."""
    if config.getoption("--loop") == "uvloop":
        chosen = [item for item in items if iscoroutinefunction(getattr(item, "obj", None))]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def pytest_sessionstart() -> None:
    """A shell's background job ignores Ctrl-C, and what the tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail a test in which this package blocks the event loop.

    `agent_conn.testing` waits for the thread of its gateway, as it says.
    """
    with blockbuster_ctx(agent_conn, excluded_modules=[agent_conn.testing]) as blockbuster:
        yield blockbuster


@pytest.fixture
async def loop_reports() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop's exception handler is told. A test fails if anything is left."""
    reports: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context))
    before = asyncio.all_tasks()
    yield reports
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert {task.get_name() for task in left} == set()
    assert reports == []


@pytest.fixture
async def session(loop_reports: list[dict[str, Any]]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
async def gateway(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Gateway]:
    async with Gateway(shown_headers=SHOWN) as running:
        yield running


@pytest.fixture
async def line(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Line]:
    """A plain line to a gateway, after which nothing may be left."""
    async with open_line(tls=False) as opened:
        yield opened


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def any_line(
    request: pytest.FixtureRequest, loop_reports: list[dict[str, Any]]
) -> AsyncIterator[Line]:
    """A line, once plain and once with TLS, after which nothing may be left."""
    async with open_line(tls=request.param) as opened:
        yield opened


@pytest.fixture
def room() -> Room:
    return Room()
