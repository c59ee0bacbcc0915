from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--repeat", type=int, default=1, metavar="N", help="run every cell of the matrix N times"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat the cells. pytest knows the option only where it is started on this folder."""
    times = metafunc.config.getoption("--repeat", 1)
    if times > 1 and "cell" in metafunc.fixturenames:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(times))
