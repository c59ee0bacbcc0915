"""Imports every module of the installed agent_conn, each in an interpreter of its own.

    python -I tests/packaging/import_each.py [EXTRA …]

Run by an interpreter that has agent_conn with just these extras; with any, the modules that
need none are left out. A module must be importable, but for an integration or the command line
whose extra is not among them: that must say in its last line what to install. The exit status is 1
where it is not so.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MAY_NEED_AN_EXTRA = ("agent_conn.integrations.", "agent_conn.cli", "agent_conn.__main__")


def modules() -> list[str]:
    """Every module's name; finding them imports none."""
    spec = importlib.util.find_spec("agent_conn")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("agent_conn is not installed")
    package = Path(spec.submodule_search_locations[0])
    files = (path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py"))
    return sorted(".".join(file.parts).removesuffix(".__init__") for file in files)


def problem_of(module: str, extras: set[str]) -> str | None:
    """What is wrong with importing `module`, None where nothing is."""
    command = [sys.executable, "-I", "-W", "error", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    last_line = done.stderr.strip().rpartition("\n")[2]
    asked = re.search(r"pip install 'agent-conn\[(\w+)\]'$", last_line)
    if asked and asked[1] not in extras and module.startswith(MAY_NEED_AN_EXTRA):
        return None
    return f"{module}: {done.stderr.strip()}"


def main(extras: set[str]) -> None:
    # pytest itself imports the plugin.
    found = [each for each in modules() if each != "agent_conn._pytest_plugin"]
    names = [each for each in found if not extras or each.startswith(MAY_NEED_AN_EXTRA)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [each for each in pool.map(problem_of, names, [extras] * len(names)) if each]
    if problems:
        sys.exit("\n".join(problems))
    sys.stdout.write(f"{len(names)} modules imported, each on its own\n")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
