from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from helpers.pooling import Site, open_site


@pytest.fixture
async def site(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Site]:
    """A gateway without TLS, after which no socket may be open."""
    async with open_site() as opened:
        yield opened
