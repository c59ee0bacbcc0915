"""``attribute_job`` under LiveKit's unmodified classes: real rooms on a fake native side."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import json
import pickle
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_support import CREDENTIALS, NativeSide, Running, fake_job, job, running_job
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, inference
from livekit.agents.utils import http_context

from agent_conn import AgentIdentity, AttributionLevel, WaitOutcome
from agent_conn.gateway import DropHandshake, Fault, Gateway, Redirect, Reject
from agent_conn.integrations.livekit import attribute_job

JOB_ID = "X-LiveKit-Job-ID"
ROOM, AGENT = AttributionLevel.ROOM, AttributionLevel.AGENT


@asynccontextmanager
async def dialing(gateway: Gateway, **options: Any) -> AsyncIterator[None]:
    """LiveKit's STT and TTS, which dial ``gateway`` at once."""
    settings = {"base_url": gateway.base_url, **CREDENTIALS, **options}
    stt, tts = inference.STT("a/b", **settings), inference.TTS("a/b", **settings)
    tts.prewarm()
    async with stt.stream():
        yield
    await stt.aclose()
    await tts.aclose()


def levels(gateway: Gateway) -> list[AttributionLevel]:
    return [handshake.level for handshake in gateway.handshakes]


async def opened(gateway: Gateway, count: int) -> None:
    """Return once that many were answered, and the clients have said something since."""
    await gateway.wait_until(
        lambda: (
            len(gateway.handshakes) == count
            and all(each.messages_received for each in gateway.connections)
            and all(each.answered_at for each in gateway.handshakes)
        )
    )


async def test_early_dials_wait_and_go_out_with_every_id_on_what_was_dialled_meanwhile(
    running: Running, gateway: Gateway
) -> None:
    attribution = attribute_job()
    async with dialing(gateway):
        await gateway.wait_until(lambda: gateway.accepted == 2)
        assert gateway.handshakes == []
        await running.connect()
        await opened(gateway, 2)
    own = AgentIdentity("AJ_1", running.ctx.job.room.sid, "PA_one")
    assert [handshake.identity for handshake in gateway.handshakes] == [own, own]
    assert gateway.accepted == 2
    assert {record.identity for record in attribution.records} == {own}
    for record in attribution.records:
        assert (record.wait_outcome, record.pre_dialed) == (WaitOutcome.CONNECTED, True)
        assert record.waited is not None
        assert record.upgraded is not None
        assert record.response_headers["x-livekit-request-id"].startswith("request_")
        assert record.session_id in {handshake.session_id for handshake in gateway.handshakes}


async def test_a_room_that_never_connects_is_waited_for_once(
    running: Running, gateway: Gateway
) -> None:
    attribution = attribute_job(connect_wait=0.2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with dialing(gateway):
        await opened(gateway, 2)
        assert loop.time() - started >= 0.2
    async with dialing(gateway):
        await opened(gateway, 4)
    assert levels(gateway) == [ROOM] * 4
    records = attribution.records
    assert [record.wait_outcome for record in records] == [WaitOutcome.TIMED_OUT] * 4
    first, later = records[:2], records[2:]
    assert all(record.waited and record.waited > 0.1 for record in first)
    assert all(record.waited is not None and record.waited < 0.1 for record in later)


async def test_a_job_that_has_left_its_room_does_not_wait(
    running: Running, gateway: Gateway
) -> None:
    attribution = attribute_job()
    await running.connect()
    await running.ctx.room.disconnect()
    async with dialing(gateway):
        await opened(gateway, 2)
    assert levels(gateway) == [ROOM] * 2
    assert all(record.waited is not None and record.waited < 1 for record in attribution.records)


async def test_a_fake_job_does_not_wait(gateway: Gateway, loop_reports: list[Any]) -> None:
    async with running_job(fake_job):
        attribution = attribute_job()
        async with dialing(gateway):
            await opened(gateway, 2)
        assert levels(gateway) == [ROOM] * 2
        for record in attribution.records:
            assert record.waited is not None
            assert record.waited < 1


async def test_requests_that_do_not_name_this_job_are_told_no_id_and_logged_once(
    running: Running,
    gateway: Gateway,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", gateway.base_url)
    async with Gateway() as elsewhere:
        attribution = attribute_job()
        for headers in ({}, {}, {JOB_ID: "AJ_other"}, {JOB_ID: "AJ_other"}):
            for each in (gateway, elsewhere):
                async with running.session.ws_connect(each.url("/v1/echo"), headers=headers):
                    pass
        for each in (gateway, elsewhere):
            sent = [handshake.identity for handshake in each.handshakes]
            other = AgentIdentity(job_id="AJ_other")
            assert sent == [AgentIdentity(), AgentIdentity(), other, other]
            assert {handshake.session_id for handshake in each.handshakes} == {None}
    assert attribution.records == ()
    told = [
        (vars(record)["path"], vars(record)["reason"])
        for record in caplog.records
        if record.getMessage().startswith("request_not_attributed")
    ]
    assert told == [("/v1/echo", "it names no job"), ("/v1/echo", "it names another job")]


async def test_a_dial_made_outside_of_the_jobs_context_is_told_in_the_log(
    gateway: Gateway, loop_reports: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    work: asyncio.Queue[aiohttp.ClientSession] = asyncio.Queue()

    async def worker() -> None:
        tts = inference.TTS(
            "a/b", base_url=gateway.base_url, http_session=await work.get(), **CREDENTIALS
        )
        tts.prewarm()
        await opened(gateway, 3)
        await tts.aclose()

    before = asyncio.create_task(worker())
    async with running_job() as running:
        attribute_job()
        await running.connect()
        async with dialing(gateway):
            await opened(gateway, 2)
        work.put_nowait(running.session)
        await before
    assert levels(gateway) == [AGENT, AGENT, AttributionLevel.NONE]
    assert "request_not_attributed: /v1/tts, because it names no job" in caplog.text


async def test_another_sessions_dial_is_left_as_it_is(
    running: Running, gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    attribution = attribute_job()
    async with dialing(gateway, http_session=session):
        await opened(gateway, 2)
    assert levels(gateway) == [ROOM, ROOM]
    assert attribution.records == ()


async def test_a_redirect_is_refused_without_a_retry_and_no_other_host_is_told_an_id(
    running: Running, gateway: Gateway
) -> None:
    attribute_job()
    await running.connect()
    async with Gateway() as elsewhere:
        gateway.inject(Redirect(f"{elsewhere.base_url}/stt"), times=None)
        stt = inference.STT("a/b", base_url=gateway.base_url, **CREDENTIALS)
        stream = stt.stream(conn_options=APIConnectOptions(max_retry=2, retry_interval=0.01))
        with pytest.raises(APIError, match="redirects") as refused:
            await anext(stream)
        assert refused.value.retryable is False
        await stream.aclose()
        await stt.aclose()
        assert len(gateway.handshakes) == 1
        assert elsewhere.accepted == 0


async def test_a_redirect_of_another_request_is_followed(
    running: Running, gateway: Gateway
) -> None:
    attribute_job()
    async with Gateway() as elsewhere:
        gateway.inject(Redirect(f"{elsewhere.base_url}/echo"))
        async with running.session.ws_connect(gateway.url("/v1/echo")):
            assert len(elsewhere.handshakes) == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone has it")
async def test_every_websocket_of_the_session_ends_where_its_network_is_dead(
    running: Running, gateway: Gateway
) -> None:
    attribute_job(connect_wait=0)
    for headers in ({}, {JOB_ID: "AJ_1"}):
        async with running.session.ws_connect(gateway.url("/v1/echo"), headers=headers) as ws:
            sock = ws.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 4000
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_a_dial_that_is_cancelled_in_the_wait_leaves_nothing_but_its_record(
    running: Running, gateway: Gateway
) -> None:
    attribution = attribute_job()
    dial = asyncio.create_task(
        running.session.ws_connect(gateway.url("/v1/echo"), headers={JOB_ID: "AJ_1"})
    )
    await gateway.wait_until(lambda: gateway.accepted == 1)
    dial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dial
    await gateway.wait_idle(2.0)
    assert gateway.handshakes == []
    (record,) = attribution.records
    assert (record.wait_outcome, record.identity, record.dials) == (None, None, 1)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (Reject(503), aiohttp.WSServerHandshakeError),
        (DropHandshake(), aiohttp.ServerDisconnectedError),
    ],
    ids=["rejected", "dropped"],
)
async def test_a_dial_that_fails_has_one_record_with_what_was_sent(
    running: Running, gateway: Gateway, fault: Fault, raised: type[Exception]
) -> None:
    attribution = attribute_job()
    await running.connect()
    gateway.inject(fault, times=None)
    with pytest.raises(raised):
        await running.session.ws_connect(gateway.url("/v1/echo"), headers={JOB_ID: "AJ_1"})
    (record,) = attribution.records
    assert record.attribution is AGENT


async def test_what_the_gateway_repeats_of_a_credential_is_not_recorded(
    running: Running, gateway: Gateway
) -> None:
    attribution = attribute_job()
    await running.connect()
    secret = "a-token-that-nobody-else-may-see"
    gateway.inject(Reject(401, headers={"X-Echo": secret, "X-Plain": "fine"}))
    headers = {JOB_ID: "AJ_1", "Authorization": f"Bearer {secret}"}
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await running.session.ws_connect(gateway.url("/v1/echo"), headers=headers)
    (record,) = attribution.records
    assert record.response_headers["x-plain"] == "fine"
    assert "x-echo" not in record.response_headers
    told = json.dumps(dataclasses.asdict(record), default=str)
    assert secret not in told
    assert copy.deepcopy(record) == pickle.loads(pickle.dumps(record)) == record


async def test_a_job_is_attributed_once(running: Running, gateway: Gateway) -> None:
    attribution = attribute_job(running.ctx)
    assert attribute_job(running.ctx, connect_wait=1.0) is attribution
    assert len(running.session.trace_configs) == 1
    assert repr(attribution) == "<JobAttribution of AJ_1, 0 requests>"


async def test_two_jobs_in_one_loop_send_their_own_ids(
    gateway: Gateway, loop_reports: list[Any]
) -> None:
    async def run(name: str) -> None:
        with job(rooms[name], f"AJ_{name}"):
            async with http_context.open() as session:
                attribute_job()
                async with dialing(gateway):
                    await gateway.wait_until(lambda: gateway.accepted == 4)
                    native.release()
                    await opened(gateway, 4)
                assert not session.closed

    native = NativeSide(hold=True)
    with native.installed():
        rooms = {name: rtc.Room() for name in ("red", "blue")}
        connecting = [
            asyncio.create_task(each.connect("ws://unused", name)) for name, each in rooms.items()
        ]
        await asyncio.sleep(0)
        await asyncio.gather(*(run(name) for name in rooms))
        await asyncio.gather(*connecting)
        await asyncio.gather(*(each.disconnect() for each in rooms.values()))
    pairs = {(each.identity.job_id, each.identity.agent_id) for each in gateway.handshakes}
    assert pairs == {("AJ_red", "PA_red"), ("AJ_blue", "PA_blue")}


async def test_a_thousand_dials_of_a_job_without_a_room_keep_no_response(
    running: Running, gateway: Gateway
) -> None:
    attribution = attribute_job(connect_wait=0.01)
    alive = []
    for count in range(1, 1001):
        async with running.session.ws_connect(gateway.url("/v1/echo"), headers={JOB_ID: "AJ_1"}):
            pass
        if count in {100, 1000}:
            gc.collect()
            alive.append(sum(isinstance(each, aiohttp.ClientResponse) for each in gc.get_objects()))
    assert alive[1] <= alive[0]
    assert len(attribution.records) == 1000
