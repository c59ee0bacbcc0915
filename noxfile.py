"""What is checked, by name: ``nox -s quick tests lint docs``, and ``gate`` for all of it.

A session runs on the interpreter that runs nox; ``-P 3.13`` takes another one. What follows ``--``
goes to pytest, such as ``nox -s tests -- --loop uvloop tests/core``.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["quick", "lint"]


@nox.session
def quick(session: nox.Session) -> None:
    """The tests that take seconds in all."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-q", "-m", "quick", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-q", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and which module imports which."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("pyright", "--verifytypes", "agent_conn", "--ignoreexternal")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """The site without a warning, and each block of it."""
    session.install("-e", ".[dev]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp())
    session.run("pytest", "-q", "tests/docs", *session.posargs)


@nox.session(venv_backend="none")
def gate(session: nox.Session) -> None:
    """What must pass before a change lands, in environments of its own."""
    session.run("bash", ".ci/run", external=True)
