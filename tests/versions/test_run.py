"""Which interpreter the suite is run on, where there are several or none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from versions.run import CannotRun, candidates, is_python, make_root

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the interpreters are scripts")


def interpreter(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_shim_that_finds_none_is_passed_over_for_pyenvs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    interpreter(tmp_path / "python3.99", "exit 127")
    interpreter(tmp_path / "versions" / "3.99.0" / "bin" / "python3.99", "echo 3.98")
    right = interpreter(tmp_path / "versions" / "3.99.1" / "bin" / "python3.99", "echo 3.99")
    assert [each for each in candidates("3.99") if is_python(each, "3.99")] == [right]


def test_a_python_that_no_debian_has_is_told_with_those_that_one_has() -> None:
    with pytest.raises(CannotRun, match=r"no Python 3\.99 found.*3\.13, 3\.14"):
        make_root("3.99")
