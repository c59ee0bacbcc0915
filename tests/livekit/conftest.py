from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """Collects here what LiveKit left open, whose warnings would fail a later test."""
    yield
    gc.collect()


@pytest.fixture
async def running(loop_reports: list[Any]) -> AsyncIterator[Any]:
    """A job whose room has asked to connect."""
    # Some tests of this folder run without LiveKit.
    from helpers.livekit_support import running_job  # noqa: PLC0415

    async with running_job() as started:
        yield started
