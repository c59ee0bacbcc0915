"""The examples, as a reader runs them: as scripts, and the pumps against a scripted gateway."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import sys
import wave
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import duplex
import pytest
import stt_pump
import tts_pump
from audio import AudioPipe
from hearing import Heard

from agent_conn import (
    AttributionLevel,
    ConnectionLost,
    InferenceConnection,
    Reconnector,
    RetryPolicy,
    reconnect,
)
from agent_conn.gateway import (
    CloseWith,
    Connection,
    DropAfter,
    Fault,
    Gateway,
    GoSilent,
    LocalSpeech,
    Reset,
    ScriptedEngine,
    SpokenAudio,
    Transcript,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
KEY, SECRET = "key-of-the-test", "secret-of-the-test-0123456789abcdef0123456789"
RATE = 16_000
HALF_SECOND = bytes(RATE)
LOSSES = [DropAfter(), Reset(), CloseWith(1011), CloseWith(1000)]


# The pumps.


@pytest.fixture
async def client(loop_reports: list[dict[str, Any]]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


NEVER_AGAIN = RetryPolicy(classify=lambda _: False)


def stt(
    client: aiohttp.ClientSession,
    gateway: Gateway,
    rate: int = RATE,
    retry: RetryPolicy = NEVER_AGAIN,
) -> Reconnector:
    begin = partial(stt_pump.create_session, sample_rate=rate)
    url = gateway.url("/v1/stt?model=auto")
    return reconnect(partial(InferenceConnection, client, url, on_open=begin), retry=retry)


def tts(
    client: aiohttp.ClientSession,
    gateway: Gateway,
    rate: int = RATE,
    retry: RetryPolicy = NEVER_AGAIN,
) -> Reconnector:
    begin = partial(tts_pump.create_session, sample_rate=rate)
    url = gateway.url("/v1/tts?model=auto")
    return reconnect(partial(InferenceConnection, client, url, on_open=begin), retry=retry)


class Silent:
    """An engine that neither hears nor speaks; `at_last` is heard as the session closes."""

    def __init__(self, at_last: str = "") -> None:
        self.at_last = at_last
        self.finalized = 0

    def recognizer(self, sample_rate: int, language: str | None = None) -> Silent:
        return self

    async def feed(self, pcm: bytes) -> list[Transcript]:
        return []

    async def finalize(self) -> list[Transcript]:
        self.finalized += 1
        if self.finalized < 2 or not self.at_last:
            return []
        return [Transcript(self.at_last, final=True)]

    async def aclose(self) -> None:
        pass

    async def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        await asyncio.Event().wait()
        yield SpokenAudio(b"")


async def test_transcripts_come_in_order_and_the_session_is_closed_in_order(
    client: aiohttp.ClientSession,
) -> None:
    seen: list[Connection] = []
    heard: list[Heard] = []

    def hear(transcript: Heard) -> None:
        seen.extend(gateway.connections)
        heard.append(transcript)

    async with Gateway(ScriptedEngine(["one two three"])) as gateway:
        loop = stt(client, gateway)
        finals = await stt_pump.transcribe(
            loop, duplex.once(HALF_SECOND), sample_rate=RATE, on_transcript=hear, speed=100
        )
        await gateway.wait_idle()
        # session.create, ten chunks of 50 ms, session.finalize, session.close
        assert seen[0].messages_received == 13
        assert seen[0].close_code == 1000
    assert finals == ["one two three"]
    assert [(each.text, each.final) for each in heard] == [
        ("one", False),
        ("one two", False),
        ("one two three", False),
        ("one two three", True),
    ]
    assert loop.statistics.lost == 0


async def test_a_transcript_that_comes_only_as_the_session_closes_is_not_lost(
    client: aiohttp.ClientSession,
) -> None:
    async with Gateway(Silent(at_last="at last")) as gateway:
        finals = await stt_pump.transcribe(
            stt(client, gateway),
            duplex.once(HALF_SECOND),
            sample_rate=RATE,
            on_transcript=lambda _: None,
            speed=100,
        )
    assert finals == ["at last"]


async def test_audio_is_sent_no_faster_than_it_is_spoken(client: aiohttp.ClientSession) -> None:
    clock = asyncio.get_running_loop().time
    async with Gateway(ScriptedEngine()) as gateway:
        began = clock()
        await stt_pump.transcribe(
            stt(client, gateway),
            duplex.once(HALF_SECOND),
            sample_rate=RATE,
            on_transcript=lambda _: None,
        )
        # Ten chunks have nine intervals of 50 ms.
        assert clock() - began >= 0.45


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_a_final_loss_while_hearing_is_raised(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    def strike(_: Heard) -> None:
        # A second transcript may have been on its way when the first one struck.
        for connection in gateway.connections:
            connection.inject(fault)

    async with Gateway(ScriptedEngine()) as gateway:
        audio = AudioPipe(RATE)
        audio.put(HALF_SECOND)
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(10):
                await stt_pump.transcribe(
                    stt(client, gateway),
                    audio,
                    sample_rate=RATE,
                    on_transcript=strike,
                    speed=100,
                )
        await gateway.wait_idle()


async def test_a_final_loss_before_the_session_is_closed_is_raised(
    client: aiohttp.ClientSession,
) -> None:
    class Lost(Silent):
        async def finalize(self) -> list[Transcript]:
            await super().finalize()
            if self.finalized == 2:
                gateway.connections[0].inject(Reset())
                await gateway.wait_idle()
            return []

    async with Gateway(Lost()) as gateway:
        with pytest.raises(ConnectionLost):
            await stt_pump.transcribe(
                stt(client, gateway),
                duplex.once(HALF_SECOND),
                sample_rate=RATE,
                on_transcript=lambda _: None,
                speed=100,
            )


class Counting:
    """Hears the chunks of 50 ms by the number in each; every ten give a final."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.told = 0

    def recognizer(self, sample_rate: int, language: str | None = None) -> Counting:
        return Counting()

    async def feed(self, pcm: bytes) -> list[Transcript]:
        self.heard.append(pcm[0])
        if len(self.heard) - self.told == 10:
            return await self.finalize()
        return [Transcript(str(pcm[0]), False, self.told * 0.05, 0.05)]

    async def finalize(self) -> list[Transcript]:
        chunks, start = self.heard[self.told :], self.told * 0.05
        self.told = len(self.heard)
        text = " ".join(map(str, chunks))
        return [Transcript(text, True, start, len(chunks) * 0.05)] if chunks else []

    async def aclose(self) -> None:
        pass

    async def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        raise NotImplementedError
        yield


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_over_losses_every_chunk_is_transcribed_once_and_repetitions_are_marked(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    chunks = b"".join(bytes([number]) * (RATE // 10) for number in range(45))
    strikes = {7, 23, 38}
    repeated: list[str] = []

    def hear(heard: Heard) -> None:
        if heard.repeated:
            repeated.append(heard.text)
        numbers = {int(number) for number in heard.text.split()}
        if not heard.final and (due := strikes & numbers):
            strikes.difference_update(due)
            gateway.connections[-1].inject(fault)

    async with Gateway(Counting()) as gateway:
        loop = stt(client, gateway, retry=RetryPolicy(initial=0.01))
        finals = await stt_pump.transcribe(
            loop, duplex.once(chunks), sample_rate=RATE, on_transcript=hear, speed=20
        )
        await gateway.wait_idle()
    assert strikes == set()
    assert loop.statistics.opened == 4
    assert " ".join(finals) == " ".join(map(str, range(45)))
    assert repeated


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_over_a_loss_speech_goes_on_with_the_sentence_that_was_not_finished(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    spoken: list[str] = []

    class Losing(Silent):
        async def synthesize(
            self,
            text: str,
            sample_rate: int,
            *,
            voice: str | None = None,
            language: str | None = None,
        ) -> AsyncGenerator[SpokenAudio, None]:
            spoken.append(text)
            yield SpokenAudio(bytes(320))
            if spoken == ["One.", "Two."]:
                gateway.connections[-1].inject(fault)
                await asyncio.Event().wait()

    async def sentences() -> AsyncIterator[str]:
        for sentence in ("One.", "Two.", "Three."):
            yield sentence

    async with Gateway(Losing()) as gateway:
        loop = tts(client, gateway, retry=RetryPolicy())
        await tts_pump.speak(loop, sentences(), on_audio=lambda _: None)
        await gateway.wait_idle()
    assert spoken == ["One.", "Two.", "Two.", "Three."]


async def test_an_error_message_while_hearing_is_raised(client: aiohttp.ClientSession) -> None:
    async with Gateway(ScriptedEngine()) as gateway:
        with pytest.raises(duplex.GatewayError, match="sample_rate must be 8000") as raised:
            await stt_pump.transcribe(
                stt(client, gateway, rate=4000),
                AudioPipe(RATE),
                sample_rate=4000,
                on_transcript=lambda _: None,
            )
        assert raised.value.code == 400
        await gateway.wait_idle()


async def test_what_the_audio_source_raises_is_raised(client: aiohttp.ClientSession) -> None:
    async def broken() -> AsyncIterator[bytes]:
        raise LookupError("no microphone")
        yield b""

    async with Gateway(ScriptedEngine()) as gateway:
        with pytest.raises(LookupError, match="no microphone"):
            await stt_pump.transcribe(
                stt(client, gateway), broken(), sample_rate=RATE, on_transcript=lambda _: None
            )
        await gateway.wait_idle()


async def test_a_gateway_that_answers_nothing_is_not_waited_for_without_bound(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stt_pump, "FINALIZE_SECONDS", 0.05)
    monkeypatch.setattr(duplex, "DRAIN_SECONDS", 0.05)
    async with Gateway(ScriptedEngine()) as gateway:
        gateway.inject(GoSilent())
        async with asyncio.timeout(10):
            finals = await stt_pump.transcribe(
                stt(client, gateway),
                duplex.once(HALF_SECOND),
                sample_rate=RATE,
                on_transcript=lambda _: None,
                speed=100,
            )
        assert finals == []
        await gateway.wait_idle()


async def test_sentences_are_spoken_and_the_session_is_closed_in_order(
    client: aiohttp.ClientSession,
) -> None:
    async def sentences() -> AsyncIterator[str]:
        yield "One."
        yield "Two."

    pcm = bytearray()
    seen: list[Connection] = []

    def play(audio: bytes) -> None:
        seen.extend(gateway.connections)
        pcm.extend(audio)

    async with Gateway(ScriptedEngine()) as gateway:
        loop = tts(client, gateway)
        await tts_pump.speak(loop, sentences(), on_audio=play)
        await gateway.wait_idle()
        # session.create, two texts with their session.flush, session.close
        assert seen[0].messages_received == 6
        assert seen[0].close_code == 1000
    # The scripted engine speaks 60 ms for each character of "One." and "Two.".
    assert len(pcm) / 2 / RATE == pytest.approx(0.48)
    assert loop.statistics.lost == 0


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_a_final_loss_while_speaking_is_raised(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    async with Gateway(Silent()) as gateway:
        gateway.inject(fault)
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(10):
                await tts_pump.speak(
                    tts(client, gateway), duplex.once("Hello."), on_audio=lambda _: None
                )
        await gateway.wait_idle()


async def test_an_error_message_while_speaking_is_raised(client: aiohttp.ClientSession) -> None:
    async with Gateway(ScriptedEngine()) as gateway:
        with pytest.raises(duplex.GatewayError, match="sample_rate must be 8000"):
            await tts_pump.speak(
                tts(client, gateway, rate=4000), duplex.once("Hello."), on_audio=lambda _: None
            )
        await gateway.wait_idle()


async def test_a_gateway_that_falls_silent_while_speaking_is_an_error(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tts_pump, "SILENCE_SECONDS", 0.05)
    async with Gateway(Silent()) as gateway:
        with pytest.raises(duplex.GatewayError, match=r"no audio in 0\.05 s"):
            await tts_pump.speak(
                tts(client, gateway), duplex.once("Hello."), on_audio=lambda _: None
            )
        await gateway.wait_idle()


# The scripts.


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
    assert "no 16-bit mono or stereo PCM" in outcome.err


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


# Their promises to a reader.

STARTS_OTHERS = {"livekit_agent.py": 110, "livekit_call.py": 210, "livekit_local_server.py": 180}
"""Lines of those that start a server, a worker and a caller beside the agent."""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_uses_public_names_alone(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < STARTS_OTHERS.get(path.name, 100)
    integrations = {f"agent_conn.integrations.{name}" for name in ("livekit", "opentelemetry")}
    modules = {"agent_conn", "agent_conn.gateway", "agent_conn.testing", *integrations}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agent_conn"):
            assert node.module in modules
            assert not any(alias.name.startswith("_") for alias in node.names)
