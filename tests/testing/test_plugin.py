"""The fixtures as users' own runs of pytest have them."""

from __future__ import annotations

import base64

import pytest

pytest_plugins = ["pytester"]
# Each starts a pytest of its own, and one of them imports LiveKit Agents.
pytestmark = pytest.mark.timeout(180)

AGENT = """
import asyncio, aiohttp, pytest
from agent_conn import AttributionLevel, InferenceConnection

async def agent(gateway, identity, room_connected):
    async with aiohttp.ClientSession() as session:
        connection = InferenceConnection(
            session, gateway.url("/v1/echo"), identity=identity, room_connected=room_connected
        )
        opening = asyncio.ensure_future(connection)
        await gateway.wait_until(lambda: gateway.accepted == 1)
        room_connected.set()
        await opening
        await connection.aclose()
    gateway.assert_attributed(AttributionLevel.AGENT)
"""
ASYNC_TEST = """
async def test_mine(inference_gateway, agent_identity, agent_room_connected):
    await agent(inference_gateway, agent_identity, agent_room_connected)
"""
PLAIN_TEST = """
def test_mine(inference_gateway, agent_identity, agent_room_connected):
    asyncio.run(agent(inference_gateway, agent_identity, agent_room_connected))
"""
# Or else some releases of pytest-asyncio warn.
FUNCTION_SCOPE = "asyncio_default_fixture_loop_scope=function"
ANYIO_TEST = """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
"""


@pytest.mark.parametrize(
    ("test", "options"),
    [
        (ASYNC_TEST, ["--asyncio-mode=auto", "-o", FUNCTION_SCOPE]),
        ("@pytest.mark.asyncio" + ASYNC_TEST, ["-o", FUNCTION_SCOPE]),
        ("@pytest.mark.asyncio(loop_scope='session')" + ASYNC_TEST, ["-o", FUNCTION_SCOPE]),
        (ANYIO_TEST.rstrip() + ASYNC_TEST, ["-p", "no:asyncio"]),
        (PLAIN_TEST, ["-p", "no:asyncio", "-p", "no:anyio"]),
    ],
    ids=["auto", "strict", "session loop", "anyio", "plain"],
)
def test_they_serve_tests_of_any_kind(
    pytester: pytest.Pytester, test: str, options: list[str]
) -> None:
    pytester.makepyfile(AGENT + test)
    pytester.runpytest_subprocess("-W", "error", *options).assert_outcomes(passed=1)


def test_a_failed_assertion_shows_the_users_line_and_what_was_seen(
    pytester: pytest.Pytester,
) -> None:
    wrong = PLAIN_TEST + '    inference_gateway.assert_attributed(path="/v1/tts")\n'
    pytester.makepyfile(AGENT + wrong)
    result = pytester.runpytest_subprocess("-p", "no:asyncio")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '>*inference_gateway.assert_attributed(path="/v1/tts")',
            "E*AssertionError: no request came to /v1/tts; seen:",
            "E*/v1/echo AGENT (job AJ_test, room RM_test, agent PA_test), status 101",
        ]
    )
    result.stdout.no_fnmatch_line("*raise AssertionError*")


def test_a_fixture_of_ones_own_replaces_the_gateway(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import pytest\n"
        "from agent_conn.gateway import Gateway\n"
        "from agent_conn.testing import InferenceGateway\n"
        "@pytest.fixture(scope='session')\n"
        "def inference_gateway():\n"
        "    with InferenceGateway(Gateway(token='of-the-test')) as gateway:\n"
        "        yield gateway\n"
    )
    pytester.makepyfile(
        AGENT + "from agent_conn import HandshakeRejected\n"
        "async def test_mine(inference_gateway, agent_identity, agent_room_connected):\n"
        "    with pytest.raises(HandshakeRejected) as rejected:\n"
        "        await agent(inference_gateway, agent_identity, agent_room_connected)\n"
        "    assert rejected.value.status == 401\n"
        "    inference_gateway.assert_attributed()\n"
    )
    pytester.runpytest_subprocess("--asyncio-mode=auto").assert_outcomes(passed=1)


def test_livekits_own_tts_dials_the_gateway_with_nothing_but_the_environment(
    pytester: pytest.Pytester,
) -> None:
    pytest.importorskip("livekit.agents", exc_type=ImportError)
    pcm = base64.b64encode(bytes(4800)).decode()
    pytester.makepyfile(
        f"""
        import base64
        import aiohttp, pytest
        from livekit.agents import inference
        from agent_conn.gateway import ScriptedEngine

        @pytest.mark.usefixtures("inference_environment")
        async def test_mine(inference_gateway):
            inference_gateway.engine = ScriptedEngine(audio=base64.b64decode("{pcm}"))
            async with aiohttp.ClientSession() as session:
                tts = inference.TTS("cartesia/sonic-3", http_session=session)
                frames = [each.frame async for each in tts.synthesize("Hello.")]
                await tts.aclose()
            assert sum(frame.samples_per_channel for frame in frames) >= 2400
            [handshake] = inference_gateway.handshakes
            assert handshake.path == "/v1/tts"
            assert handshake.headers["Authorization"] == "<redacted>"
        """
    )
    pytester.runpytest_subprocess("--asyncio-mode=auto").assert_outcomes(passed=1)


BARE = ["-p", "no:cacheprovider", "-p", "agent_conn._pytest_plugin"]


def test_a_run_that_uses_none_imports_nothing_for_them(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "agent_conn._pytest_plugin" in sys.modules
            ours = {"agent_conn.testing", "agent_conn._connection", "aiohttp"}
            assert ours.isdisjoint(sys.modules)
        """
    )
    pytester.runpytest_subprocess(*BARE).assert_outcomes(passed=1)


def test_a_missing_dependency_breaks_the_test_that_needs_it_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        aiohttp="raise ImportError('aiohttp is broken here')",
        test_two="def test_mine(): pass\ndef test_agent(inference_gateway): pass",
    )
    result = pytester.runpytest_subprocess(*BARE)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E*ImportError: aiohttp is broken here"])
