from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.exported import Exported, exporting


@pytest.fixture
def exported() -> Iterator[Exported]:
    with exporting() as everything:
        yield everything
