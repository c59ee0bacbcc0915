from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import agent_conn


def test_the_package_offers_each_of_its_names_once() -> None:
    assert len(set(agent_conn.__all__)) == len(agent_conn.__all__)
    for name in agent_conn.__all__:
        assert getattr(agent_conn, name) is not None


def test_dir_shows_every_public_name() -> None:
    assert set(agent_conn.__all__) <= set(dir(agent_conn))


def test_a_name_that_is_not_offered_is_told_as_any_modules() -> None:
    with pytest.raises(AttributeError, match=r"agent_conn.*nothing"):
        agent_conn.nothing  # noqa: B018


def test_every_public_name_says_what_it_is() -> None:
    for name in agent_conn.__all__:
        value = getattr(agent_conn, name)
        if isinstance(value, type):
            assert value.__doc__, name


def test_every_module_can_be_imported_on_its_own() -> None:
    modules = [
        module.name
        for module in pkgutil.walk_packages(agent_conn.__path__, "agent_conn.")
        if not module.name.endswith("__main__")
    ]
    for name in modules:
        assert importlib.import_module(name).__doc__, name


def test_importing_the_package_imports_no_extra_and_no_gateway() -> None:
    program = (
        "import sys, agent_conn; agent_conn.InferenceConnection;"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), sep='\\n');"
        "print(*(name for name in sys.modules if name.startswith('agent_conn.gateway')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "aiohttp" in loaded
    extras = {"httpx", "jwt", "livekit", "opentelemetry", "pocketsphinx", "rich", "typer"}
    assert extras.isdisjoint(loaded)
    assert not [name for name in loaded if name.startswith("agent_conn.gateway")]
