"""The suite on another Python, but for what needs a browser or real speech.

    python tests/versions/run.py 3.14
    python tests/versions/run.py 3.14 tests/core --eager-tasks

What follows the version goes to pytest. The interpreter is the one on PATH or pyenv's. Where there
is none, a Debian that has it is made by debootstrap, which takes root and half a minute. It is kept
in the user's cache, and so is the environment, which is made anew each time. This takes minutes,
and is no part of the gate.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-conn"
DEBIANS = {"3.13": "trixie", "3.14": "sid"}
"""Which Debian has which Python."""
PACKAGES = "python3,python3-venv,ca-certificates,iproute2"
LEFT_OUT = ("tests/inspector", "tests/gateway/test_gateway_speech.py", "tests/packaging")
"""A browser, real speech, and what builds environments of its own."""
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
TELL = (
    "import aiohttp, platform, ssl\n"
    "print('Python', platform.python_version())\n"
    "print('aiohttp', aiohttp.__version__)\n"
    "print(ssl.OPENSSL_VERSION)"
)
IN_ROOT = """
root=$1; shift
for path in /dev /proc /sys /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs "$PWD"; do
  if [ -d "$path" ]; then mkdir -p "$root$path"
  elif [ -e "$path" ]; then touch "$root$path"
  else continue
  fi
  mount --rbind "$path" "$root$path"
done
exec chroot "$root" env -C "$PWD" "$@"
"""
"""Run a command in a root that has the network, the certificates and this repository of outside.

The mounts end with the command, whose namespace they are in.
"""


class CannotRun(Exception):
    """There is no such Python, and none can be made."""


def run(*command: str | Path) -> int:
    """The status of ``command``."""
    return subprocess.run([str(word) for word in command], cwd=REPOSITORY, check=False).returncode


def check(*command: str | Path) -> None:
    """Run ``command``, which must succeed."""
    if status := run(*command):
        raise CannotRun(f"{command[0]} failed with status {status}")


def candidates(version: str) -> Iterator[Path]:
    """Where an interpreter may be. One on PATH may be a shim that finds none."""
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder in sorted(pyenv.glob(f"versions/{version}*"), reverse=True):
        yield folder / "bin" / f"python{version}"


def is_python(interpreter: Path, version: str) -> bool:
    """Whether ``interpreter`` runs, and is of ``version``."""
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        told = subprocess.run(
            [interpreter, "-c", tell], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return told.stdout.strip() == version


def make_root(version: str) -> Path:
    """A Debian with Python ``version``, made at the first call."""
    if version not in DEBIANS:
        known = ", ".join(DEBIANS)
        raise CannotRun(f"no Python {version} found; debootstrap can give {known}")
    root = CACHE / f"debian-{DEBIANS[version]}"
    if (root / "complete").exists():
        return root
    if os.geteuid() != 0:
        raise CannotRun(f"no Python {version} found; debootstrap needs root to make one")
    if shutil.which("debootstrap") is None:
        check("apt-get", "update", "-q")
        check("apt-get", "install", "-q", "-y", "--no-install-recommends", "debootstrap")
    shutil.rmtree(root, ignore_errors=True)
    suite = DEBIANS[version]
    check("debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, root, mirror())
    (root / "complete").touch()
    return root


def mirror() -> str:
    """The Debian mirror that apt uses here."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    told = subprocess.run([*command, "Label: Debian"], capture_output=True, text=True, check=False)
    if not told.stdout:
        raise CannotRun("apt has no Debian mirror here")
    return told.stdout.split()[0]


def prepare(version: str) -> tuple[str | Path, ...]:
    """What to put before Python's own arguments, in an environment with the dev extra."""
    found = next((each for each in candidates(version) if is_python(each, version)), None)
    prefix: tuple[str | Path, ...] = ()
    environment = CACHE / f"python-{version}"
    if found is None:
        prefix = ("unshare", "--mount", "sh", "-euc", IN_ROOT, "sh", make_root(version))
        found, environment = Path("/usr/bin/python3"), Path("/environment")
    check(*prefix, found, "-m", "venv", "--clear", environment)
    python = (*prefix, environment / "bin" / "python")
    check(*python, "-m", "pip", "install", "-q", "-e", ".[dev]")
    return python


def main() -> None:
    """Run the suite; the status is pytest's."""
    if len(sys.argv) < 2:
        sys.exit("which Python? Such as: python tests/versions/run.py 3.14")
    version, *arguments = sys.argv[1:]
    try:
        python = prepare(version)
    except CannotRun as reason:
        sys.exit(str(reason))
    run(*python, "-c", TELL)
    left_out = [f"--ignore={path}" for path in LEFT_OUT]
    sys.exit(run(*python, *PYTEST, *left_out, *arguments))


if __name__ == "__main__":
    main()
