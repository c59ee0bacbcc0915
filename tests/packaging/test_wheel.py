"""The wheel, built from the source distribution and installed by itself, off the source tree.

These tests take what they build and install with from the package index that pip is set up for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "test_my_agent.py"
IMPORT_EACH = Path(__file__).parent / "import_each.py"

pytestmark = pytest.mark.timeout(300)

SMOKE = """
import asyncio, importlib.metadata, sys
import aiohttp
import agent_conn
from agent_conn.gateway import Gateway

assert agent_conn.__file__.startswith(sys.prefix), agent_conn.__file__
assert agent_conn.__version__ == importlib.metadata.version("agent-conn")
names = [getattr(agent_conn, name) for name in agent_conn.__all__]

async def main():
    identity = agent_conn.AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
    async with Gateway() as gateway, aiohttp.ClientSession() as session:
        url = gateway.url("/v1/echo")
        connection = agent_conn.InferenceConnection(session, url, identity=identity)
        async with connection as ws:
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"
        print(gateway.handshakes[0].level.name)

asyncio.run(main())
"""

SETTINGS = """
[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
filterwarnings = ["error"]
"""

WHERE = """
import pathlib, sys
import agent_conn

def test_agent_conn_is_on_the_path_once_and_that_is_the_installed_one():
    places = [pathlib.Path(each) / "agent_conn" / "__init__.py" for each in sys.path]
    assert [each for each in places if each.exists()] == [pathlib.Path(agent_conn.__file__)]
    assert agent_conn.__file__.startswith(sys.prefix)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; one that fails fails the test with all that it said."""
    # pytest's and Python's own variables would reach into what is tested.
    own = {name: os.environ[name] for name in os.environ if not name.startswith(("PY", "COV"))}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=own, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}"
        pytest.fail(f"{Path(command[0]).name} exited with {done.returncode}:\n{said}")
    return done.stdout


@dataclass
class Installed:
    """A fresh environment with what pip was asked for and nothing else."""

    folder: Path

    def python(self, *arguments: str | Path) -> str:
        """Run its interpreter in an empty folder, isolated from this one's settings."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return run(self._interpreter, "-I", *arguments, cwd=elsewhere)

    @classmethod
    def of(cls, folder: Path, *requirements: str | Path) -> Installed:
        venv.create(folder)
        made = cls(folder)
        options = ("--python", made._interpreter, "install", "--quiet", "--no-compile")
        run(sys.executable, "-m", "pip", *options, *requirements, cwd=folder)
        return made

    @property
    def _interpreter(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel without extras: aiohttp is all that comes with it."""
    return Installed.of(tmp_path_factory.mktemp("alone"), wheel)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    source = [path for path in (ROOT / "agent_conn").rglob("*") if path.is_file()]
    expected = {
        path.relative_to(ROOT).as_posix() for path in source if "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_it_opens_a_connection_without_any_extra(alone: Installed) -> None:
    assert alone.python("-W", "error", "-c", SMOKE) == "AGENT\n"


def test_each_of_its_modules_is_importable_or_says_what_to_install(alone: Installed) -> None:
    assert "modules imported" in alone.python(IMPORT_EACH)


def test_a_project_of_ones_own_has_the_fixtures(wheel: Path, tmp_path: Path) -> None:
    installed = Installed.of(tmp_path / "venv", wheel, "pytest", "pytest-asyncio")
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(SETTINGS)
    (project / "test_where.py").write_text(WHERE)
    shutil.copy(EXAMPLE, project)
    assert "4 passed" in installed.python("-m", "pytest", "-q", project)
