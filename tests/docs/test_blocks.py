"""Every block of code in README.md and docs/ does what its page says, as a reader pastes it."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from helpers.documents import ROOT, Block, blocks, commands, pages

PYTHON = blocks("python")
PROGRAMS = [block for block in PYTHON if block.compiled_only is None and block.title is None]
TESTS = [block for block in PYTHON if block.compiled_only is None and block.title is not None]
SHELL = blocks("sh")
SECONDS = 30
SHELL_WORDS = {"cd", "eval", "export", "kill", "source"}
OURS = "agent_conn"


def named(found: list[Block]) -> list[object]:
    return [pytest.param(block, id=block.name) for block in found]


@pytest.fixture(scope="module")
def gateway() -> Iterator[dict[str, str]]:
    """`agent-conn gateway`, and the environment of a shell that took what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LIVEKIT", "AGENT_CONN"))
    }
    command = (sys.executable, "-m", OURS, "gateway", "--port", "0", "--engine", "scripted")
    with subprocess.Popen(
        (*command, "--no-inspect", "--quiet"), stdout=subprocess.PIPE, env=inherited, text=True
    ) as process:
        assert process.stdout is not None
        try:
            # It closes its stdout once there is no more to print there.
            lines = process.stdout.read().splitlines()
            exports = (line.removeprefix("export ").partition("=") for line in lines)
            yield inherited | {name: value for name, _, value in exports}
        finally:
            process.send_signal(signal.SIGTERM)


def run(environment: dict[str, str], *arguments: str) -> tuple[str, str]:
    """What a Python process wrote to stdout and stderr, once it has ended well."""
    command = (sys.executable, *arguments)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


@pytest.mark.parametrize("block", named(PROGRAMS))
def test_a_program_runs_as_it_stands(block: Block, gateway: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block.code, encoding="utf-8")
    printed, told = run(gateway, "-W", "error", str(program))
    assert told == ""
    if block.prints is not None:
        alike = doctest.OutputChecker().check_output(block.prints, printed, doctest.ELLIPSIS)
        assert alike, printed


@pytest.mark.parametrize("block", named(TESTS))
def test_tests_pass_as_they_stand(block: Block, gateway: dict[str, str], tmp_path: Path) -> None:
    assert block.title is not None
    (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    printed, _ = run(gateway, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path))
    assert "passed" in printed


@pytest.mark.parametrize(
    "block", named([block for block in PYTHON if block.compiled_only is not None])
)
def test_what_is_not_run_compiles_and_imports_names_that_exist(block: Block) -> None:
    tree = ast.parse(block.code)
    ours = [
        (node.module, name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == OURS
        for name in node.names
    ]
    assert ours, "a block of a page shows this package"
    for module, name in ours:
        assert hasattr(importlib.import_module(module or ""), name), f"{module} has no {name}"


@pytest.mark.parametrize("block", named(SHELL))
def test_a_shell_block_names_commands_files_and_options_that_exist(block: Block) -> None:
    for words in commands(block):
        assert problem(words) is None, problem(words)


def test_each_page_is_whole() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        assert text.count("```") % 2 == 0, page
        assert text.startswith("# "), page


def problem(words: list[str]) -> str | None:
    """What a command names that is not there, or None."""
    while "=" in words[0]:  # A variable for this command alone.
        words = words[1:]
    command, *arguments = words
    name = Path(command).name
    if name in SHELL_WORDS:
        return None
    if name == "agent-conn":
        return _missing_option(arguments)
    if name in {"python", "python3", "pytest"}:
        return _missing_file(arguments)
    if name == "pip":
        return _missing_extra(arguments)
    # Beside this interpreter, as in a venv that is activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    there = shutil.which(command, path=path) or (ROOT / command).exists()
    return None if there else f"there is no {command}"


def _missing_file(arguments: list[str]) -> str | None:
    if arguments[:1] == ["-m"]:
        found = importlib.util.find_spec(arguments[1]) or (ROOT / arguments[1]).is_dir()
        return None if found else f"there is no module {arguments[1]}"
    files = [each for each in arguments if "/" in each and not each.startswith(("-", "http"))]
    gone = [each for each in files if not (ROOT / each.partition("::")[0]).exists()]
    return f"there is no {gone[0]}" if gone else None


def _missing_extra(arguments: list[str]) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for argument in arguments:
        for extra in argument.rstrip("]").partition("[")[2].split(","):
            if extra and extra not in project["optional-dependencies"]:
                return f"there is no extra {extra}"
    return None


def _missing_option(arguments: list[str]) -> str | None:
    command = arguments[0]
    gone = [each for each in arguments[1:] if each.startswith("--") and each not in _help(command)]
    return f"agent-conn {command} has no {gone[0]}" if gone else None


@cache
def _help(command: str) -> str:
    environment = os.environ | {"COLUMNS": "200"}
    arguments = (sys.executable, "-m", OURS, command, "--help")
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, check=True
    ).stdout
