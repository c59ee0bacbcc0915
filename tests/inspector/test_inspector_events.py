"""What a page is told: snapshots, changes, bounds, and nothing that is secret."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

import aiohttp
import pytest
from helpers.inspecting import details_of, dial, events_of

from agent_conn import AgentIdentity
from agent_conn.gateway import DropHandshake, Gateway, Inspector, Reject


async def test_a_row_tells_who_called_how_it_went_and_how_it_ended(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with events_of(http, inspected) as events:
        identity = AgentIdentity("AJ_1", "RM_1", "PA_1")
        async with dial(session, inspected, "/v1/echo?model=m", identity=identity) as ws:
            row = await events.until(1, state="open")
            await ws.send_str("four")
            await ws.receive(5)
            await events.until(1, counts=[1, 1, 4, 4])
        row = await events.until(1, state="closed")
        shown = {name: row[name] for name in ("level", "job", "room", "agent", "path", "model")}
        assert shown == {
            "level": "AGENT",
            "job": "AJ_1",
            "room": "RM_1",
            "agent": "PA_1",
            "path": "/v1/echo",
            "model": "m",
        }
        assert (row["status"], row["code"]) == (101, 1000)
        assert row["session"] == inspected.handshakes[0].session_id
        times = row["times"]
        order = ("accepted", "secured", "requested", "answered", "message", "ended")
        assert [times[name] for name in order] == sorted(times.values())
        levels = events.status["levels"]
        assert levels["AGENT"] == {"open": 0, "served": 1, "bytes": 8}


async def test_a_client_that_dialled_ahead_is_seen_to_wait(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    async with events_of(http, inspected) as events:
        reader, writer = await asyncio.open_connection("127.0.0.1", inspected.port)
        row = await events.until(1, state="handshaking")
        assert (row["level"], row["times"]["requested"]) == (None, None)
        writer.write(b"GET /v1/echo HTTP/1.1\r\nHost: localhost\r\nX-LiveKit-Job-ID: J\r\n\r\n")
        assert b"426" in await reader.readline()
        row = await events.until(1, state="rejected", status=426)
        assert row["level"] == "JOB"
        assert row["times"]["requested"] - row["times"]["secured"] > 0.2
        writer.close()
        await writer.wait_closed()
        assert set(events.rows) == {1}


async def test_a_socket_that_closes_without_a_request_is_told(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    async with events_of(http, inspected) as events:
        _, writer = await asyncio.open_connection("127.0.0.1", inspected.port)
        writer.close()
        await writer.wait_closed()
        assert (await events.until(1, state="closed"))["times"]["requested"] is None


async def test_the_inspectors_own_requests_are_no_connections(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    for path in ("", "inspector/static/main.js", "inspector/faults"):
        async with http.get(inspected.inspector_url + path) as response:
            assert response.status == 200
    async with events_of(http, inspected) as events:
        await events.until_status()
        assert events.rows == {}
    assert inspected.handshakes == []


async def test_a_later_request_on_one_socket_has_no_accept_of_its_own(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    for _ in range(2):
        async with http.get(inspected.base_url + "/stt") as refused:
            assert refused.status == 426
    async with events_of(http, inspected) as events:
        await events.until_status()
    assert events.rows[1]["times"]["accepted"] is not None
    assert events.rows[2]["times"]["accepted"] is None


async def test_a_page_that_comes_back_is_told_only_what_it_missed(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with dial(session, inspected), dial(session, inspected) as other:
        async with events_of(http, inspected) as events:
            await events.until_status()
            assert events.names == ["reset", "rows", "status"]
            assert set(events.rows) == {1, 2}
        await other.send_str("missed")
        await other.receive(5)
        async with events_of(http, inspected, events.last_id) as again:
            await again.until_status()
            assert again.names == ["rows", "status"]
            assert set(again.rows) == {2}
        for unknown in ("0000-1", events.last_id + "999", "nonsense", "9" * 400):
            async with events_of(http, inspected, unknown) as fresh:
                await fresh.until_status()
                assert fresh.names[0] == "reset"


async def test_many_messages_make_few_events(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with events_of(http, inspected) as events, dial(session, inspected) as ws:
        await ws.send_str("x")
        await ws.receive(5)
        await events.until(1, counts=[1, 1, 1, 1])
        before = len(events.names)
        began = asyncio.get_running_loop().time()
        for _ in range(2000):
            await ws.send_str("x")
            await ws.receive(5)
        await events.until(1, counts=[2001, 2001, 2001, 2001])
        took = asyncio.get_running_loop().time() - began
        told = events.names[before:]
        assert told == ["counts", "status"] * (len(told) // 2)
        assert len(told) // 2 <= 5 * took + 1


async def test_a_page_that_does_not_read_holds_nobody_up_and_catches_up(
    inspected: Gateway, session: aiohttp.ClientSession
) -> None:
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", inspected.port))
        reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
        head = f"GET /inspector/events HTTP/1.1\r\nHost: 127.0.0.1:{inspected.port}\r\n\r\n"
        writer.write(head.encode())
        await reader.readline()
        async with dial(session, inspected) as ws:
            for _ in range(1500):
                async with session.get(inspected.base_url + "/stt") as refused:
                    assert refused.status == 426
                await ws.send_str("still served")
                assert (await ws.receive(2)).data == "still served"
            text = b""
            async with asyncio.timeout(20):
                while b'"number":1501,' not in text:
                    text += await reader.read(65_536)
        # Had the looks queued up, the open connection would be in every one of them.
        assert text.count(b"event: status") < 20
        writer.close()
        await writer.wait_closed()


async def test_what_is_over_the_bound_goes_oldest_ended_first_and_is_counted(
    loop_reports: list[dict[str, Any]], http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(Gateway(inspector=Inspector(max_connections=3)))
        async with events_of(http, gateway) as events, dial(session, gateway) as first:
            await first.send_str("kept")
            await events.until(1, state="open")
            for _ in range(4):
                async with dial(session, gateway) as ws:
                    await ws.send_str("four")
                    await ws.receive(5)
            await events.until(5, state="closed")
            assert set(events.rows) == {1, 4, 5}
            assert (events.status["kept"], events.status["givenUp"]) == (3, 2)
            levels = events.status["levels"]["NONE"]
            assert (levels["served"], levels["bytes"]) == (5, 4 * 8 + 8)
            assert await details_of(http, gateway, 2) == 404


@pytest.mark.parametrize(
    ("old", "new", "one_line"),
    [
        (AgentIdentity("J"), AgentIdentity("J", "R", "P"), True),
        (AgentIdentity(None, "R"), AgentIdentity(None, "R", "P"), True),
        (AgentIdentity("J"), AgentIdentity("J"), False),
        (AgentIdentity("J", "R", "P"), AgentIdentity("J"), False),
        (AgentIdentity("J"), AgentIdentity("K", "R", "P"), False),
        (AgentIdentity(), AgentIdentity("J", "R", "P"), False),
    ],
)
async def test_a_better_connection_beside_an_open_one_goes_on_with_its_line(
    inspected: Gateway,
    http: aiohttp.ClientSession,
    session: aiohttp.ClientSession,
    old: AgentIdentity,
    new: AgentIdentity,
    one_line: bool,
) -> None:
    async with events_of(http, inspected) as events, dial(session, inspected, identity=old):
        await events.until(1, state="open")
        async with dial(session, inspected, identity=new):
            row = await events.until(2, state="open")
            assert row["line"] == (1 if one_line else 2)
            assert events.rows[1]["supersededBy"] == (2 if one_line else None)
        await events.until(2, state="closed")
        # It stands for itself again, since it is still open.
        await events.until(1, supersededBy=None)


async def test_another_path_is_another_line(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    better = AgentIdentity("J", "R")
    async with (
        events_of(http, inspected) as events,
        dial(session, inspected, "/v1/stt", identity=AgentIdentity("J")),
        dial(session, inspected, "/v1/tts", identity=better),
    ):
        assert (await events.until(2, state="open"))["line"] == 2


async def test_each_better_connection_takes_over_from_one(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    plain, better = AgentIdentity("J"), AgentIdentity("J", "R")
    async with (
        dial(session, inspected, identity=plain),
        dial(session, inspected, identity=plain),
        dial(session, inspected, identity=better),
        dial(session, inspected, identity=better),
        dial(session, inspected, identity=better),
        events_of(http, inspected) as events,
    ):
        await events.until_status()
        lines = [events.rows[number]["line"] for number in range(1, 6)]
        assert lines == [1, 2, 1, 2, 5]


async def test_a_fault_is_named_on_what_it_struck(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    inspected.inject(Reject(429))
    inspected.inject(DropHandshake())
    for _ in range(2):
        with pytest.raises(Exception, match=r"."):
            await dial(session, inspected)
    async with events_of(http, inspected) as events:
        await events.until_status()
        assert (events.rows[1]["state"], events.rows[1]["fault"]) == ("rejected", "reject with 429")
        await events.until(2, state="closed", fault="drop handshake", status=None)


async def test_pages_are_bounded(inspected: Gateway, http: aiohttp.ClientSession) -> None:
    async with contextlib.AsyncExitStack() as pages:
        for _ in range(16):
            events = await pages.enter_async_context(events_of(http, inspected))
            await events.until_status()
        async with http.get(inspected.inspector_url + "inspector/events") as refused:
            assert refused.status == 503
    # Those that are gone make room, with no message to write to them.
    await inspected.wait_until(lambda: inspected.open_sockets <= 1)
    async with asyncio.timeout(5):
        while True:
            async with http.get(inspected.inspector_url + "inspector/events") as response:
                if response.status == 200:
                    break


async def test_a_page_that_goes_during_its_export_is_no_error(
    inspected: Gateway, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        async with http.get(inspected.base_url + "/stt"):
            pass
    reader, writer = await asyncio.open_connection("127.0.0.1", inspected.port, limit=1)
    writer.write(b"GET /inspector/export HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (await reader.read(100)).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    await inspected.wait_until(lambda: inspected.open_sockets == 1)
    # Another request of the same loop comes after whatever the first one left behind.
    async with http.get(inspected.inspector_url) as page:
        assert page.status == 200
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []
