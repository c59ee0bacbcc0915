"""The examples as a reader runs them: as scripts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import wave
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.documents import ROOT
from helpers.pumps import Silent

from agent_conn import AttributionLevel
from agent_conn.gateway import Gateway, LocalSpeech, ScriptedEngine

EXAMPLES = ROOT / "examples"
KEY, SECRET = "key-of-the-test", "secret-of-the-test-0123456789abcdef0123456789"


@dataclass
class Outcome:
    """How a script ended."""

    status: int | None
    out: str
    err: str


async def start(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    inherited = {name: os.environ[name] for name in os.environ if "LIVEKIT" not in name}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / arguments[0]),
        *arguments[1:],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # From a folder of no importance, and in a group as a terminal would make one.
        cwd="/",
        start_new_session=True,
        env=inherited | {"PYTHONIOENCODING": "utf-8", "COLUMNS": "100"} | variables,
    )


async def run(*arguments: str, **variables: str) -> Outcome:
    process = await start(*arguments, **variables)
    return await outcome_of(process)


async def outcome_of(process: asyncio.subprocess.Process) -> Outcome:
    try:
        async with asyncio.timeout(40):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return Outcome(process.returncode, out.decode(), err.decode())


async def test_the_round_trip_hears_what_it_said_and_names_the_agent() -> None:
    outcome = await run("voice_roundtrip.py")
    assert (outcome.status, outcome.err) == (0, "")
    assert "what time is it we will meet again tomorrow" in outcome.out
    assert outcome.out.count("AGENT") == 2
    assert "room        connected" in outcome.out
    for phase in ("waited", "pre_dial", "minted", "dialed", "upgraded", "opened"):
        assert outcome.out.count(phase) == 2
    assert outcome.out.count("█" * 20) >= 2


async def test_a_drop_in_mid_sentence_loses_no_word_and_is_shown() -> None:
    outcome = await run("voice_roundtrip.py", "--drop")
    assert (outcome.status, outcome.err) == (0, "")
    assert "what time is it we will meet again tomorrow" in outcome.out
    for service in ("stt", "tts"):
        assert len(re.findall(rf"{service}, \d+ ms after it was cut off", outcome.out)) == 1


async def test_a_room_that_is_late_is_not_waited_for_longer_than_told() -> None:
    outcome = await run("voice_roundtrip.py", "--room-after", "50", "--connect-wait", "0.5")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.count("ROOM") == 2
    assert outcome.out.count("timed out") == 2
    assert "room        connecting" in outcome.out


async def test_a_job_without_a_room_is_attributed_to_the_job() -> None:
    outcome = await run("voice_roundtrip.py", "--no-room", "--say", "What time is it?")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.count("JOB") == 2
    assert outcome.out.count("not requested") == 2


async def test_a_recording_of_ones_own_is_transcribed(tmp_path: Path) -> None:
    recording = tmp_path / "stereo.wav"
    async with LocalSpeech() as speech:
        spoken = speech.synthesize("We will meet again tomorrow.", 22_050)
        pcm = b"".join([piece.pcm async for piece in spoken])
    both = array("h", [sample for sample in array("h", pcm) for _ in range(2)])
    await asyncio.to_thread(write_wav, recording, both.tobytes(), channels=2, rate=22_050)
    outcome = await run("voice_roundtrip.py", "--wav", str(recording))
    assert (outcome.status, outcome.err) == (0, "")
    assert "we will meet again tomorrow" in outcome.out
    assert outcome.out.count("attribution") == 1


def write_wav(path: Path, pcm: bytes, *, channels: int, rate: int, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pcm)


async def test_a_gateway_elsewhere_gets_both_connections(
    loop_reports: list[dict[str, Any]],
) -> None:
    engine = ScriptedEngine(["heard elsewhere"])
    async with Gateway(engine, api_key=KEY, api_secret=SECRET) as gateway:
        outcome = await run("voice_roundtrip.py", *at(gateway), "--say", "Hi.")
        levels = {each.path: each.level for each in gateway.handshakes}
    assert (outcome.status, outcome.err) == (0, "")
    assert "heard elsewhere" in outcome.out
    assert levels == {"/v1/stt": AttributionLevel.AGENT, "/v1/tts": AttributionLevel.AGENT}


def at(gateway: Gateway, secret: str = SECRET) -> list[str]:
    return ["--url", gateway.base_url, "--api-key", KEY, "--api-secret", secret]


async def test_a_wrong_secret_is_told_in_one_line_that_does_not_hold_it(
    loop_reports: list[dict[str, Any]],
) -> None:
    wrong = SECRET[::-1]
    async with Gateway(api_key=KEY, api_secret=SECRET) as gateway:
        outcome = await run("voice_roundtrip.py", *at(gateway, wrong), "--say", "Hi.")
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert "401" in outcome.err
    assert wrong not in outcome.out + outcome.err


async def test_the_token_can_come_from_the_environment(
    loop_reports: list[dict[str, Any]],
) -> None:
    async with Gateway(token="token-of-the-test") as gateway:
        arguments = ("voice_roundtrip.py", "--url", gateway.base_url, "--say", "Hi.")
        without = await run(*arguments)
        outcome = await run(*arguments, LIVEKIT_INFERENCE_TOKEN="token-of-the-test")
    assert (without.status, outcome.status) == (1, 0)


async def test_hearing_nothing_is_a_failure(loop_reports: list[dict[str, Any]]) -> None:
    class Deaf(ScriptedEngine):
        def recognizer(self, sample_rate: int, language: str | None = None) -> Any:
            return Silent()

    async with Gateway(Deaf(), api_key=KEY, api_secret=SECRET) as gateway:
        outcome = await run("voice_roundtrip.py", *at(gateway), "--say", "Hi.")
    assert outcome.status == 1
    assert outcome.err == "voice_roundtrip.py: no transcript came\n"


async def test_ctrl_c_ends_it_without_a_traceback() -> None:
    process = await start(
        "voice_roundtrip.py",
        *("--room-after", "50", "--connect-wait", "50"),
        FORCE_COLOR="1",
        TERM="xterm",
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        await process.stdout.readuntil(b"connecting")
    os.killpg(process.pid, signal.SIGINT)
    outcome = await outcome_of(process)
    assert (outcome.status, outcome.err) == (130, "")


@pytest.mark.parametrize(
    ("package", "extra"),
    [("rich", "cli"), ("jwt", "cli"), ("trustme", "cli"), ("espeakng_loader", "speech")],
)
async def test_a_missing_package_is_told_with_what_to_install(
    tmp_path: Path, package: str, extra: str
) -> None:
    missing = f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
    (tmp_path / f"{package}.py").write_text(missing)
    outcome = await run("voice_roundtrip.py", PYTHONPATH=str(tmp_path))
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert "pip install" in outcome.err
    assert extra in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--room-after", "soon"),
        ("--room-after", "-1"),
        ("--connect-wait", "inf"),
        ("--connect-wait", "nan"),
        ("--say", " "),
        ("--wav", "nowhere.wav"),
        ("--api-key", "alone"),
    ],
    ids=" ".join,
)
async def test_a_wrong_option_is_named(arguments: tuple[str, str]) -> None:
    outcome = await run("voice_roundtrip.py", *arguments)
    assert outcome.status == 2
    assert arguments[0] in outcome.err.splitlines()[-1]


async def test_a_recording_that_is_not_16_bit_is_refused(tmp_path: Path) -> None:
    recording = tmp_path / "eight.wav"
    write_wav(recording, bytes(800), channels=1, rate=8000, width=1)
    outcome = await run("voice_roundtrip.py", "--wav", str(recording))
    assert outcome.status == 2
    assert "must hold 16-bit PCM, mono or stereo" in outcome.err


async def test_one_pump_speaks_into_a_file_and_the_other_transcribes_it(
    tmp_path: Path, loop_reports: list[dict[str, Any]]
) -> None:
    recording = tmp_path / "speech.wav"
    async with Gateway(ScriptedEngine(["so it is"]), api_key=KEY, api_secret=SECRET) as gateway:
        spoken = await run("tts_pump.py", *at(gateway), "--say", "Hello", "--wav", str(recording))
        heard = await run("stt_pump.py", *at(gateway), "--wav", str(recording))
    assert (spoken.status, spoken.err) == (0, "")
    assert "0.30 s of speech" in spoken.out
    assert (heard.status, heard.err) == (0, "")
    assert heard.out.splitlines() == ["(so)", "(so it)", "(so it is)", "so it is"]


async def test_the_pool_speaks_into_a_file_at_a_gateway_that_wants_a_token(
    tmp_path: Path, loop_reports: list[dict[str, Any]]
) -> None:
    recording = tmp_path / "speech.wav"
    async with Gateway(api_key=KEY, api_secret=SECRET) as gateway:
        spoken = await run("pooled_tts.py", *at(gateway), "--wav", str(recording))
        refused = await run("pooled_tts.py", "--url", gateway.base_url, "--wav", str(recording))
    assert (spoken.status, spoken.err) == (0, "")
    assert spoken.out.startswith("10 sentences over 1 dial")
    assert refused.status == 1
    assert refused.err.startswith("pooled_tts.py: the gateway answered 401 Unauthorized: ")


async def test_two_traced_calls_show_their_drop_and_redial_in_a_trace_each() -> None:
    outcome = await run("traced_calls.py")
    assert (outcome.status, outcome.err) == (0, "")
    spans = [line.split() for line in outcome.out.splitlines()]
    traces = {line[0] for line in spans}
    assert len(traces) == 2
    for trace in traces:
        told = [(line[1], line[2]) for line in spans if line[0] == trace]
        assert told == [
            ("agent_conn.connect", "opened"),
            ("agent_conn.connection", "lost"),
            ("agent_conn.connect", "opened"),
            ("agent_conn.connection", "closed_here"),
            ("call", "-"),
        ]
