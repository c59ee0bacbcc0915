"""Run `agent-conn probe` as a user does, and look at all that it printed."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_conn.cli import main
from agent_conn.gateway import Gateway
from helpers.canary import QUERY, TOKEN, assert_clean

KEY = "canary-key-4715"
SECRET = "canary-secret-4716-of-more-than-32-bytes"
VARIABLES = ("TOKEN", "API_KEY", "API_SECRET", "URL")


@dataclass
class Ended:
    """How a run ended. No run may have shown a credential."""

    status: int
    out: str
    err: str

    def __post_init__(self) -> None:
        assert_clean([self.out, self.err])
        for shown in (self.out, self.err):
            # A minted token is a JWT, which begins with these letters.
            assert not any(secret in shown for secret in (KEY, SECRET, "eyJ"))

    @property
    def found(self) -> dict[str, Any]:
        """The JSON object, which is all of stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def failure(self) -> dict[str, Any]:
        failure: dict[str, Any] = self.found["connections"][-1]["failure"]
        return failure

    @property
    def advice(self) -> str:
        return " ".join(self.found["advice"])


class Probe:
    """`agent-conn probe`, run in a thread of this process with an event loop of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in VARIABLES:
            monkeypatch.delenv(f"LIVEKIT_INFERENCE_{name}", raising=False)
            monkeypatch.delenv(f"LIVEKIT_{name}", raising=False)
        monkeypatch.setenv("COLUMNS", "80")

    async def __call__(self, *arguments: str) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["agent-conn", "probe", *arguments])
        status = await asyncio.to_thread(_status)
        out, err = self._capsys.readouterr()
        return Ended(status, out, err)

    async def both(self, *arguments: str) -> tuple[Ended, str]:
        """The run with ``--json``, and what the same shows a person."""
        ended = await self(*arguments, "--json")
        page = await self(*arguments)
        assert page.status == ended.status == ended.found["exit_status"]
        return ended, page.out


def _status() -> int:
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    raise AssertionError("the command returned without a status")


def authority_file(gateway: Gateway, folder: Path) -> str:
    """The gateway's own authority in a file, as ``--ca`` takes it."""
    assert gateway.client_ssl is not None
    path = folder / "ca.pem"
    certificates = gateway.client_ssl.get_ca_certs(binary_form=True)
    path.write_text("".join(map(ssl.DER_cert_to_PEM_cert, certificates)))
    return str(path)


def with_query(url: str) -> str:
    """``url`` with a query that no output may show."""
    return f"{url}?key={QUERY}"


WITH_TOKEN = ("--token", TOKEN)
