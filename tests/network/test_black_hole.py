"""A network that dies without a word, between two network namespaces."""

from __future__ import annotations

import pytest
from black_hole import measure, missing

LACKING = missing()


@pytest.mark.skipif(LACKING is not None, reason=f"needs {LACKING}")
def test_the_kernel_ends_a_connection_whose_network_died() -> None:
    found = measure(network_timeout=1.0)
    dead = "the network was dead for network_timeout"
    assert {name: loss["reason"] for name, loss in found.items()} == {"sending": dead, "idle": dead}
