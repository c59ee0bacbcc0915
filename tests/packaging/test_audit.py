from __future__ import annotations

import runpy
from pathlib import Path

AUDIT = runpy.run_path(str(Path(__file__).parent.parent.parent / ".ci" / "audit.py"))

SOUND = {"name": "sound", "version": "1", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


def test_a_known_vulnerability_fails_the_audit_and_is_named() -> None:
    found = {"id": "CVE-1", "fix_versions": ["2", "3"]}
    text, status = AUDIT["report"]([SOUND, {"name": "holed", "version": "1", "vulns": [found]}])
    assert status == 1
    assert text == "holed 1: CVE-1, fixed in 2, 3\n2 of 2 packages audited"


def test_what_could_not_be_audited_is_told() -> None:
    text, status = AUDIT["report"]([SOUND, UNKNOWN])
    assert status == 0
    assert text.startswith("1 of 2 packages audited\nNOT AUDITED")
    assert text.endswith(": unknown")
