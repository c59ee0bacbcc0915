"""Where the command's gateway has an inspector, and that it serves it."""

from __future__ import annotations

import re

import aiohttp
import pytest
from helpers.gateway_process import gateway_process, run

from agent_conn.cli.gateway.inspecting import inspector_for
from agent_conn.gateway import Inspector

TOKEN = "canary-for-inspectors"
SCRIPTED = ("--engine", "scripted")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_loopback_it_is_inspected_unless_told_otherwise(host: str) -> None:
    assert inspector_for(host, inspect=None, allow_remote=False, token=None) == Inspector()
    assert inspector_for(host, inspect=False, allow_remote=False, token=None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_elsewhere_it_is_not_inspected_unless_told(host: str) -> None:
    assert inspector_for(host, inspect=None, allow_remote=False, token=None) is None
    remote = inspector_for(host, inspect=None, allow_remote=True, token=TOKEN)
    assert remote == Inspector(token=TOKEN, allow_remote=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--no-inspect", "--inspector-token", TOKEN), "need --inspect"),
        (("--host", "0.0.0.0", "--inspect", "--token", "t"), "needs --allow-remote"),
        (("--host", "0.0.0.0", "--allow-remote", "--token", "t"), "needs --inspector-token"),
        (
            ("--host", "0.0.0.0", "--allow-remote", "--inspector-token", TOKEN[:15]),
            "--inspector-token must have at least 16 characters",
        ),
    ],
)
async def test_options_that_do_not_go_together_are_refused(
    options: tuple[str, ...], told: str
) -> None:
    outcome = await run("gateway", *SCRIPTED, *options)
    assert outcome.status == 64
    assert told in re.sub(r"[\s│]+", " ", outcome.err)
    assert TOKEN[:15] not in outcome.err


async def test_it_says_where_the_page_is_and_serves_it() -> None:
    async with gateway_process(*SCRIPTED) as served:
        base_url = (await served.environment())["LIVEKIT_INFERENCE_URL"]
        page_url = base_url.removesuffix("v1")
        async with aiohttp.ClientSession() as session, session.get(page_url) as response:
            assert response.status == 200
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        outcome = await served.stop()
    assert f"inspector: {page_url}\n" in outcome.err
