"""The tests of LiveKit against the oldest release that is supported, one between, and the newest.

    python tests/livekit/versions.py [VERSION ...]

Each release has a venv of its own, made anew in the system's folder for temporary files. Calls on
a real server run where there is one. It takes minutes, and is no part of the gate.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("1.8.1", "1.8.5", "")
"""The floor, before which LiveKit's own pools closed sockets in use; one between; the newest."""
CALLS = ("test_real_calls.py", "test_real_changes.py")


def run(*command: str | Path) -> bool:
    """Whether ``command`` ends well; what it says is shown."""
    print("+", *command, flush=True)
    return subprocess.run([str(each) for each in command], cwd=ROOT, check=False).returncode == 0


def check(version: str, folder: Path) -> bool:
    """Whether all tests pass with ``version`` of LiveKit Agents."""
    python = folder / "bin" / "python"
    wanted = f"livekit-agents=={version}" if version else "livekit-agents"
    installed = run(sys.executable, "-m", "venv", folder) and run(
        python, "-m", "pip", "install", "-q", "--upgrade", "-e", ".[dev]", wanted
    )
    if not installed:
        return False
    pytest = (python, "-m", "pytest", "-q")
    # In 1.8.1 a job of a thread may outlive its worker, and leaves its event loop open.
    warnings = ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
    ignored = [option for each in warnings for option in ("-W", f"ignore::{each}")]
    without_server = run(*pytest, "tests/livekit", "--ignore-glob=tests/livekit/test_real_*")
    calls = [run(*pytest, *ignored, f"tests/livekit/{name}") for name in CALLS]
    return without_server and all(calls)


def main() -> None:
    """Check each version; the status is that of all."""
    verdicts = {}
    for version in sys.argv[1:] or VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            verdicts[version or "newest"] = check(version, Path(folder))
    for version, passed in verdicts.items():
        print(f"livekit-agents {version}: {'passed' if passed else 'FAILED'}")
    sys.exit(not all(verdicts.values()))


if __name__ == "__main__":
    main()
