from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """Collects here what LiveKit left open, whose warnings would fail a later test."""
    yield
    gc.collect()
