"""Audits the packages of an environment for known vulnerabilities, with pip-audit.

    python .ci/audit.py SITE_PACKAGES

Run by an interpreter that has pip-audit, which asks the package index's JSON interface. A known
vulnerability gives the exit status 1. What the index cannot tell, or an index that cannot be
reached, is no failure, since not every network has one; it is always told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def report(dependencies: list[dict[str, Any]]) -> tuple[str, int]:
    """What to print of pip-audit's findings, and the exit status."""
    skipped = [each["name"] for each in dependencies if "skip_reason" in each]
    lines = [
        f"{each['name']} {each['version']}: {found['id']}, fixed in "
        f"{', '.join(found['fix_versions']) or 'no release'}"
        for each in dependencies
        for found in each.get("vulns", ())
    ]
    status = 1 if lines else 0
    audited = len(dependencies) - len(skipped)
    lines.append(f"{audited} of {len(dependencies)} packages audited")
    if skipped:
        lines.append(f"NOT AUDITED, for the index tells nothing of them: {', '.join(skipped)}")
    return "\n".join(lines), status


def main(site_packages: str) -> None:
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--skip-editable"]
    command += ["--format", "json", "--path", site_packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:
        # Its last line would name the host.
        print(f"NOTHING AUDITED: pip-audit ended with status {done.returncode} and no findings")
        return
    text, status = report(dependencies)
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
