"""Situations that people met in other projects, as scripts from outside this repository.

They lie in the folder that ``AGENT_CONN_CASES`` names, or else in ``shared/cases`` beside this
checkout. A script exits with 0 where what it found is right.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("AGENT_CONN_CASES") or ROOT.parent / "shared" / "cases")
SCRIPTS = sorted(str(script.relative_to(FOLDER)) for script in FOLDER.glob("*/*-*.py"))
AT_ONCE = 3
SLOWEST = "agents/36-muted-caller-ends-the-call.py"
SECONDS = 120

RESET = """\
async def reset(ws):
    await ws.send_str("end")
    while await ws.receive_str() != "end:done": pass

"""
# What a script calls by a name of its own day: each text is in it once, and is replaced.
CHANGES: dict[str, list[tuple[str, str]]] = {
    "agents/09-send-ends-the-loop.py": [
        (
            "async for connection in loop:\n",
            "async def body(connection):\n                    nonlocal turns\n",
        ),
        ("if turns == 2: break", "if turns == 2: return"),
        (
            "await pump(connection.ws)\n",
            "await pump(connection.ws)\n                await loop.run(body)\n",
        ),
    ],
    "agents/12-idle-close-leaves-pool-cold.py": [
        ("import InferenceConnection, ConnectionPool", "import *"),
        ('options["keepalive"] = "x"', 'options["keepalive"] = Keepalive(message="x", every=0.2)'),
    ],
    "agents/16-last-turns-audio.py": [
        ("        pool.early(connection)                     # as the pooled example does\n", ""),
        (
            "async def turn(",
            f"{RESET}async def turn(",
        ),
        ("ConnectionPool(dial)", "ConnectionPool(dial, max_size=1, reset=reset)"),
    ],
    "agents/21-fake-job-memory.py": [
        ("import attributed_session", "import attribute_job"),
        (
            "from livekit_support import fake_job",
            "from helpers.livekit_support import *\nfrom livekit.agents.utils import http_context",
        ),
        ("as gateway:", "as gateway, http_context.open() as session:"),
        ("session = attributed_session(ctx, origins=gateway.base_url)", "attribute_job(ctx)"),
        ('url("/v1/echo")', 'url("/v1/echo"), headers=livekit_headers()'),
        ('len(getattr(session._pools, "_stale", ()))', '"none"'),
        ("; await session.close()", ""),
    ],
    "agents/30-session-limit-gap.py": [
        ("reconnect(dial)", "reconnect(dial, max_age=0.7)"),
        (
            "await asyncio.sleep(0.01)\n",
            "await asyncio.sleep(0.01)\n                    if loop.successor: break\n",
        ),
    ],
    "clients/08-pool-not-rewarmed.py": [
        (
            "max_size=4) as pool:\n            pool.prewarm(2)",
            "max_size=4, min_idle=2) as pool:\n            pool.prewarm(2)",
        ),
    ],
    "clients/09-restart-storm-1012-1013.py": [("stable_after=0.3", "")],
    "clients/17-planned-rotation.py": [
        ("await loop.upgrade()", "await loop.rotate()"),
        ("= loop.better", "= loop.successor"),
    ],
}


@pytest.fixture(scope="session")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[str]]]:
    """What each script that was asked for says, run a few at a time: they mostly wait."""
    folder = tmp_path_factory.mktemp("cases")
    for source in FOLDER.glob("*/*.py"):
        name = str(source.relative_to(FOLDER))
        copy = folder / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(changed(name, source.read_text()))
    asked = [
        str(item.callspec.params["script"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == test_a_case.__name__
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        first = sorted(asked, key=lambda script: script != SLOWEST)
        yield {script: pool.submit(run, folder / script) for script in first}
        pool.shutdown(cancel_futures=True)


def changed(name: str, text: str) -> str:
    for old, new in CHANGES.get(name, ()):
        assert text.count(old) == 1, f"{name} has not once {old!r}"
        text = text.replace(old, new)
    return text


def run(script: Path) -> str:
    """Its output, which ends with its exit status."""
    try:
        done = subprocess.run(
            [sys.executable, script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return f"{error.output!r}\nnot done after {SECONDS} s"
    return f"{done.stdout}\n{done.returncode}"


@pytest.mark.skipif(not SCRIPTS, reason=f"no cases are in {FOLDER}; set AGENT_CONN_CASES")
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_case(script: str, outcomes: dict[str, Future[str]]) -> None:
    said = outcomes[script].result()
    assert said.splitlines()[-1] == "0", said
