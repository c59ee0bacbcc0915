"""Clients that know nothing of this package's gateway but what its command printed."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.gateway_process import Ended, Served, ended, gateway_process, launch

pytestmark = pytest.mark.timeout(120)
TESTS = Path(__file__).parents[1]
ROUND_TRIP = TESTS.parent / "examples" / "voice_roundtrip.py"


@pytest.fixture(params=[(), ("--tls",)], ids=["plain", "tls"])
def speech(request: pytest.FixtureRequest) -> tuple[str, ...]:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    return ("--engine", "speech", *request.param)


async def run_client(served: Served, command: str) -> Ended:
    """Run a shell's command after the lines that the gateway printed."""
    script = f'eval "$1" && exec {command}'
    return await ended(await launch("sh", "-c", script, "sh", served.exports))


@pytest.mark.skipif(find_spec("livekit") is None, reason="the extra livekit")
async def test_livekits_own_stt_tts_and_llm_need_what_it_printed_alone(
    speech: tuple[str, ...],
) -> None:
    async with gateway_process(*speech) as served:
        client = TESTS / "helpers/unmodified_livekit.py"
        outcome = await run_client(served, f"'{sys.executable}' '{client}'")
        assert outcome.status == 0, outcome.err
        gateway = await served.stop()
    assert json.loads(outcome.out) == {"heard": "hello world", "reply": "You said: hello world"}
    for path in ("/v1/tts cartesia/sonic-3", "/v1/stt auto"):
        assert f"opened       NONE  {path}" in gateway.err
    assert "answered 200 NONE  /v1/chat/completions openai/gpt-4o-mini" in gateway.err
    assert gateway.status == 0


async def test_the_round_trip_hears_itself_through_it(speech: tuple[str, ...]) -> None:
    async with gateway_process(*speech) as served:
        outcome = await run_client(
            served,
            f"'{sys.executable}' '{ROUND_TRIP}' --url \"$LIVEKIT_INFERENCE_URL\" "
            '--api-key "$LIVEKIT_INFERENCE_API_KEY" '
            '--api-secret "$LIVEKIT_INFERENCE_API_SECRET"',
        )
        gateway = await served.stop()
    assert (outcome.status, outcome.err) == (0, "")
    assert "what time is it we will meet again tomorrow" in outcome.out
    for service in ("stt", "tts"):
        opened = f"opened       AGENT /v1/{service} auto"
        ids = "agent=PA_roundtrip room=RM_roundtrip job=AJ_roundtrip"
        assert f"{opened} {ids}" in gateway.err
