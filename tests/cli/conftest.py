from __future__ import annotations

import pytest
from helpers.probing import Probe


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Probe:
    return Probe(monkeypatch, capsys)
