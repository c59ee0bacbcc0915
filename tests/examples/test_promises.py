"""What every example promises its reader."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SCRIPTS = [
    path
    for path in EXAMPLES
    if "__main__" in path.read_text() and not path.name.startswith("livekit_")
]
"""Those of LiveKit are tested with LiveKit."""
STARTS_OTHERS = {"livekit_agent.py": 120, "livekit_call.py": 210, "livekit_local_server.py": 180}
"""Lines of those that start a server, a worker and a caller beside the agent."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_uses_public_names_alone(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < STARTS_OTHERS.get(path.name, 125)
    integrations = {f"agent_conn.integrations.{name}" for name in ("livekit", "opentelemetry")}
    modules = {"agent_conn", "agent_conn.gateway", "agent_conn.testing", *integrations}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agent_conn"):
            assert node.module in modules
            assert not any(alias.name.startswith("_") for alias in node.names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_needs_and_what_is_missing(path: Path) -> None:
    documented = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert "pip install -e '" in documented
    # Without site-packages nothing is installed.
    command = [sys.executable, "-S", "-E", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path.name} needs ")
    assert "pip install -e '" in done.stderr
    assert done.stderr.count("\n") == 1
