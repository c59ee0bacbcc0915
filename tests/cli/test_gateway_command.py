"""`agent-conn gateway` as a user and a script run it."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest
from helpers.gateway_process import ended, gateway_process, kill, launch, run, websocket

from agent_conn.cli.gateway.credentials import DEVELOPER_KEY, DEVELOPER_SECRET
from agent_conn.gateway import mint_token

pytestmark = pytest.mark.timeout(90)
SCRIPTED = ("--engine", "scripted")
TOLD_KEY, TOLD_SECRET = "canary-key", "canary-secret-0123456789abcdef"
TOLD_TOKEN = "canary-token-0123456789"
PUBLISHED = ("--api-key", DEVELOPER_KEY, "--api-secret", DEVELOPER_SECRET)
UNAVAILABLE, USAGE = 69, 64


async def speak(ws: aiohttp.ClientWebSocketResponse) -> None:
    await ws.send_json({"type": "session.create", "sample_rate": "16000"})
    await ws.send_json({"type": "input_transcript", "transcript": "hello"})
    await ws.send_json({"type": "session.flush"})
    while (await ws.receive_json())["type"] != "done":
        pass


async def test_what_it_prints_is_all_that_a_client_needs() -> None:
    async with gateway_process(*SCRIPTED) as served:
        environment = await served.environment()
        async with websocket(environment) as ws:
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"
        outcome = await served.stop()
    assert outcome.status == 0
    assert [line.partition("=")[0] for line in served.exports.splitlines()] == [
        "export LIVEKIT_INFERENCE_URL",
        "export LIVEKIT_INFERENCE_API_KEY",
        "export LIVEKIT_INFERENCE_API_SECRET",
        "export AGENT_CONN_GATEWAY_PID",
    ]
    assert environment["AGENT_CONN_GATEWAY_PID"] == str(served.process.pid)
    assert environment["LIVEKIT_INFERENCE_URL"] in outcome.err.splitlines()[0]
    assert environment["LIVEKIT_INFERENCE_API_SECRET"] not in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_closes_every_connection_with_1001(number: signal.Signals) -> None:
    async with gateway_process(*SCRIPTED) as served:
        environment = await served.environment()
        async with websocket(environment) as one, websocket(environment, "/stt?model=m") as two:
            stopping = asyncio.create_task(served.stop(number))
            for ws in (one, two):
                message = await ws.receive()
                assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
            outcome = await stopping
    assert outcome.status == 0
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    async with gateway_process(*SCRIPTED) as served:
        environment = await served.environment()
        reader, writer = await _peer_that_answers_no_close(environment)
        assert served.process.stderr is not None
        served.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            await served.process.stderr.readuntil(b"stopping")
        outcome = await served.stop(number)
        writer.close()
        await reader.read()
    assert outcome.status == -number


async def _peer_that_answers_no_close(
    environment: dict[str, str],
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    key, secret = (environment[f"LIVEKIT_INFERENCE_API_{part}"] for part in ("KEY", "SECRET"))
    port = int(environment["LIVEKIT_INFERENCE_URL"].rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (
        "GET /v1/echo HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {mint_token(key, secret)}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    writer.write("\r\n".join((*lines, "", "")).encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_shell_evaluates_it_in_the_background_and_stops_it_by_its_pid() -> None:
    script = """
        eval "$("$1" -m agent_conn gateway --port 0 --engine scripted --quiet &)"
        kill -INT "$AGENT_CONN_GATEWAY_PID"
        "$1" -c "$2" "$LIVEKIT_INFERENCE_URL/nothing"
        kill -TERM "$AGENT_CONN_GATEWAY_PID"
        while kill -0 "$AGENT_CONN_GATEWAY_PID" 2>/dev/null; do :; done
    """
    # A shell's background ignores SIGINT, and so does what was started there.
    ask = """
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1])
except urllib.error.HTTPError as answer:
    print(answer.code)
"""
    outcome = await ended(await launch("bash", "-c", script, "bash", sys.executable, ask))
    assert (outcome.status, outcome.out) == (0, "404\n")
    (told,) = outcome.err.splitlines()
    assert told.endswith("#1 answered 404 NONE  /v1/nothing no such service")


async def test_a_reader_that_leaves_early_does_not_end_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = (sys.executable, "-m", "agent_conn", "gateway", "--port", "0", *SCRIPTED)
    process = await launch(*command, stdout=writing)
    os.close(writing)
    assert process.stderr is not None
    async with asyncio.timeout(30):
        await process.stderr.readuntil(b"Ctrl-C stops it")
    process.send_signal(signal.SIGTERM)
    outcome = await ended(process)
    assert outcome.status == 0
    assert "Traceback" not in outcome.err


async def test_on_a_terminal_it_prints_lines_to_paste_and_keeps_its_stdout() -> None:
    ours, theirs = pty.openpty()
    command = (sys.executable, "-m", "agent_conn", "gateway", "--port", "0", *SCRIPTED)
    process = await launch(*command, stdout=theirs)
    os.close(theirs)
    told = b""
    try:
        while told.count(b"\n") < 3:
            told += await asyncio.to_thread(os.read, ours, 4096)
        process.send_signal(signal.SIGINT)
        outcome = await ended(process)
    finally:
        await kill(process)
        os.close(ours)
    assert outcome.status == 0
    assert [line.split("=")[0] for line in told.decode().splitlines()] == [
        "export LIVEKIT_INFERENCE_URL",
        "export LIVEKIT_INFERENCE_API_KEY",
        "export LIVEKIT_INFERENCE_API_SECRET",
    ]


async def test_a_port_that_another_gateway_has_is_told_with_its_pid() -> None:
    async with gateway_process(*SCRIPTED) as served:
        port = (await served.environment())["LIVEKIT_INFERENCE_URL"].split(":")[2].split("/")[0]
        outcome = await run("gateway", *SCRIPTED, "--port", port)
    assert (outcome.status, outcome.out) == (UNAVAILABLE, "")
    assert outcome.err == (
        f"agent-conn gateway: port {port} is taken by another agent-conn gateway "
        f"(pid {served.process.pid}); --port 0 takes a free one\n"
    )


async def test_a_port_that_another_program_has_is_told_with_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = await run("gateway", *SCRIPTED, "--port", str(port))
    assert (outcome.status, outcome.out) == (UNAVAILABLE, "")
    name = await asyncio.to_thread(Path("/proc/self/comm").read_text)
    assert f"port {port} is taken by {name.strip()} (pid {os.getpid()})" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "told"),
    [
        # 192.0.2.0/24 is for documentation, RFC 5737.
        ("192.0.2.1", "--host must be an address of this machine, got 192.0.2.1"),
        ("a..b", "--host must be a host name or an address, got a..b"),
    ],
)
async def test_a_host_that_is_not_of_this_machine_is_told(host: str, told: str) -> None:
    outcome = await run("gateway", *SCRIPTED, "--host", host, "--token", TOLD_TOKEN)
    assert (outcome.status, outcome.err) == (UNAVAILABLE, f"agent-conn gateway: {told}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--port", "65536"), "--port"),
        (("--engine", "human"), "--engine"),
        (("--nonsense",), "--nonsense"),
        (("--host", "0.0.0.0"), "give --token"),
        (("--host", "gateway.example"), "give --token"),
        (("--host", "0.0.0.0", *PUBLISHED), "that only you know"),
        (("--host", "0.0.0.0", "--token", "canary-15-chars"), "--token must have at least 16"),
        (
            ("--host", "0.0.0.0", "--api-key", TOLD_KEY, "--api-secret", "canary-15-chars"),
            "--api-secret must have at least 16",
        ),
        (("--inspector-token", "canary é"), "--inspector-token must be printable ASCII"),
        (("--inspector-token", " "), "--inspector-token must be printable ASCII"),
        (("--api-key", TOLD_KEY), "--api-key and --api-secret need each other"),
        (("--api-key", TOLD_KEY, "--api-secret", ""), "must not be empty"),
        (("--token", TOLD_TOKEN, "--api-key", TOLD_KEY, "--api-secret", TOLD_SECRET), "got both"),
        (("--token", f"{TOLD_TOKEN}\n"), "printable ASCII"),
        (("--engine", "speech", "--transcript", "one"), "--transcript"),
        (("--ca-file", "ca.pem"), "--ca-file"),
        (("canary-token",), "gateway takes options alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_wrong_command_line_is_told_and_exits_64(
    arguments: tuple[str, ...], told: str
) -> None:
    outcome = await run("gateway", *arguments)
    assert (outcome.status, outcome.out) == (USAGE, "")
    assert told in " ".join(outcome.err.split())
    assert "canary" not in outcome.err
    assert "Traceback" not in outcome.err


async def test_a_ca_file_that_cannot_be_written_is_told() -> None:
    outcome = await run("gateway", *SCRIPTED, "--port", "0", "--tls", "--ca-file", "/nowhere/ca")
    assert (outcome.status, outcome.out) == (UNAVAILABLE, "")
    assert "cannot write the --ca-file: No such file" in outcome.err


async def test_each_connection_has_its_lines_with_what_was_sent_shown_as_text() -> None:
    async with gateway_process(*SCRIPTED) as served:
        environment = await served.environment()
        headers = {"X-LiveKit-Job-ID": "AJ_[red]", "X-LiveKit-Room-ID": "RM_1"}
        async with websocket(environment, "/echo?model=[bold]%1b[31m%0d", **headers) as ws:
            await ws.send_str("hello")
            await ws.receive_str()
        async with aiohttp.ClientSession() as session:
            url = environment["LIVEKIT_INFERENCE_URL"] + "/%1b[2J%0aforged?token=canary"
            async with session.get(url) as response:
                assert response.status == 404
        outcome = await served.stop()
    assert outcome.err.count("\n") == 6, outcome.err
    _, _, opened, closed, answered, stopping = outcome.err.splitlines()
    asked = r"ROOM  /v1/echo [bold]\x1b[31m\r"
    assert opened.endswith(rf"#1 opened       {asked} room=RM_1 job=AJ_[red]")
    assert f"#1 closed       {asked} 1000 after " in closed
    assert closed.endswith("messages in 1 (5 bytes), out 1 (5 bytes)")
    assert answered.endswith(r"answered 404 NONE  /v1/\x1b[2J\nforged no such service")
    assert stopping.startswith("stopping")
    assert "\x1b" not in outcome.err
    assert "canary" not in outcome.err


async def test_what_each_caller_used_is_told_at_the_end() -> None:
    async with gateway_process(*SCRIPTED) as served:
        environment = await served.environment()
        async with websocket(environment, "/tts", **{"X-LiveKit-Job-ID": "AJ_1"}) as ws:
            await speak(ws)
        outcome = await served.stop()
    assert outcome.err.splitlines()[-1] == "job=AJ_1: heard 0.0 s, spoke 0.3 s of 5 characters"


async def test_quiet_tells_of_no_connection() -> None:
    async with gateway_process(*SCRIPTED, "--quiet") as served:
        async with websocket(await served.environment(), "/tts") as ws:
            await speak(ws)
        outcome = await served.stop()
    assert (outcome.status, outcome.err) == (0, "")


async def test_the_script_is_what_was_asked_for() -> None:
    arguments = ("--transcript", "so it is", "--reply", "one", "--reply", "two")
    async with gateway_process(*arguments) as served:
        environment = await served.environment()
        async with websocket(environment, "/stt?model=m") as ws:
            await ws.send_json({"type": "session.create", "settings": {"sample_rate": "16000"}})
            await ws.send_json({"type": "input_audio", "audio": "AAAAAA=="})
            await ws.send_json({"type": "session.finalize"})
            while (message := await ws.receive_json())["type"] != "final_transcript":
                pass
            assert message["transcript"] == "so it is"
        replies = [await _chat(environment) for _ in range(2)]
    assert replies == ["one", "two"]


async def _chat(environment: dict[str, str]) -> str:
    token = mint_token(
        environment["LIVEKIT_INFERENCE_API_KEY"], environment["LIVEKIT_INFERENCE_API_SECRET"]
    )
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    url = environment["LIVEKIT_INFERENCE_URL"] + "/chat/completions"
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers=headers) as response,
    ):
        answer = await response.json()
    reply: str = answer["choices"][0]["message"]["content"]
    return reply


@pytest.fixture
def without_speech(tmp_path: Path) -> dict[str, str]:
    """An environment in which the speech extra is not installed."""
    missing = "raise ModuleNotFoundError('No module named espeakng_loader')"
    (tmp_path / "espeakng_loader.py").write_text(missing)
    return {"PYTHONPATH": str(tmp_path)}


async def test_speech_that_is_not_installed_is_told_with_what_to_install(
    without_speech: dict[str, str],
) -> None:
    outcome = await run("gateway", "--port", "0", "--engine", "speech", variables=without_speech)
    assert (outcome.status, outcome.out) == (UNAVAILABLE, "")
    assert "pip install 'agent-conn[speech]'" in outcome.err
    assert outcome.err.count("\n") == 1


async def test_without_speech_and_without_asking_for_it_the_engine_is_scripted(
    without_speech: dict[str, str],
) -> None:
    async with gateway_process(variables=without_speech) as served:
        outcome = await served.stop()
    first, _, hint, _ = outcome.err.splitlines()
    assert "engine scripted" in first
    assert "pip install 'agent-conn[speech]'" in hint
