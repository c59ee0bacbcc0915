"""What is told where an outside package is not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

PROGRAM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
import agent_conn
try:
    import agent_conn.integrations.{module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "packages", "extra"),
    [
        ("livekit", {"livekit"}, "livekit"),
        ("httpx", {"httpx"}, "httpx"),
        ("opentelemetry", {"opentelemetry"}, "otel"),
    ],
)
def test_the_core_goes_without_and_the_integration_says_what_to_install(
    module: str, packages: set[str], extra: str
) -> None:
    program = PROGRAM.format(packages=packages, module=module)
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert told.stderr == ""
    assert f"pip install 'agent-conn[{extra}]'" in told.stdout


NEEDED = {
    "livekit": "livekit.api",
    "httpx": "httpx",
    "opentelemetry": "agent_conn.integrations.opentelemetry.telemetry",
}


@pytest.mark.parametrize("module", NEEDED)
def test_a_package_that_fails_to_import_is_told_as_the_cause(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    pytest.importorskip(f"agent_conn.integrations.{module}", exc_type=ImportError)
    path = sys.modules[f"agent_conn.integrations.{module}"].__file__
    spec = importlib.util.spec_from_file_location("imported_again", path)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setitem(sys.modules, NEEDED[module], None)
    with pytest.raises(ImportError, match="pip install") as failed:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert isinstance(failed.value.__cause__, ImportError)


def test_the_httpx_auth_goes_without_httpx2() -> None:
    pytest.importorskip("httpx", exc_type=ImportError)
    program = PROGRAM.format(packages={"httpx2"}, module="httpx")
    program += "import httpx\n"
    program += "auth = agent_conn.integrations.httpx.AttributionAuth('https://h', identity=None)\n"
    program += "print(isinstance(auth, httpx.Auth))"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (told.stdout.strip(), told.stderr) == ("True", "")
