"""``AttributionAuth`` in clients of httpx and httpx2, alone and under openai."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

pytest.importorskip("httpx", exc_type=ImportError)
pytest.importorskip("httpx2", exc_type=ImportError)
pytest.importorskip("openai", exc_type=ImportError)

import httpx
import httpx2
import openai
from helpers.support import Room

from agent_conn import AgentIdentity, AttributionLevel, HandshakeInvalid, WaitOutcome
from agent_conn.gateway import Gateway, Redirect
from agent_conn.integrations.httpx import AttributionAuth

AGENT = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
BOTH = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@pytest.fixture
async def chat(loop_reports: list[Any]) -> AsyncIterator[Gateway]:
    async with Gateway(chat_replies=["hello"], token="key") as gateway:
        yield gateway


class ConnectsWhenAwaited(asyncio.Event):
    async def wait(self) -> Literal[True]:
        self.set()
        return True


def auth_for(server: Gateway, room: Room, **options: Any) -> AttributionAuth:
    arguments = {"identity": room.identity, "room_connected": room.connected, **options}
    return AttributionAuth(server.base_url, **arguments)


def identities(gateway: Gateway) -> list[AgentIdentity]:
    return [handshake.identity for handshake in gateway.handshakes]


@BOTH
async def test_an_openai_client_waits_for_the_room_and_sends_the_agents_id(
    library: Any, chat: Gateway
) -> None:
    auth = auth_for(chat, Room(ConnectsWhenAwaited()), connect_wait=None)
    http_client = library.AsyncClient(auth=auth)
    async with openai.AsyncClient(
        api_key="key", base_url=chat.base_url, http_client=http_client
    ) as client:
        answer = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.choices[0].message.content == "hello"
    assert identities(chat) == [AGENT]
    (handshake,) = chat.handshakes
    (record,) = auth.records
    assert handshake.session_id == record.session_id
    assert (record.attribution, record.wait_outcome) == (
        AttributionLevel.AGENT,
        WaitOutcome.CONNECTED,
    )
    assert record.upgraded is not None


@BOTH
async def test_a_room_that_does_not_connect_in_time_costs_the_agents_id_alone(
    library: Any, chat: Gateway, room: Room
) -> None:
    auth = auth_for(chat, room, connect_wait=0.02)
    async with library.AsyncClient(auth=auth) as client:
        await client.get(chat.base_url, headers={"x-livekit-session-id": "theirs"})
    assert identities(chat) == [AgentIdentity("AJ_1", "RM_1")]
    assert chat.handshakes[0].session_id == "theirs"
    assert [record.wait_outcome for record in auth.records] == [WaitOutcome.TIMED_OUT]


@BOTH
async def test_a_redirect_is_refused_before_the_ids_go_elsewhere(
    library: Any, chat: Gateway, room: Room
) -> None:
    room.connected.set()
    async with Gateway() as gateway:
        gateway.inject(Redirect(f"{chat.base_url}/there", 307))
        auth = auth_for(gateway, room)
        async with library.AsyncClient(auth=auth, follow_redirects=True) as client:
            with pytest.raises(HandshakeInvalid, match="redirects"):
                await client.get(f"{gateway.base_url}/away")
        assert identities(gateway) == [AGENT]
    assert chat.handshakes == []
    (record,) = auth.records
    assert record.upgraded is None


@BOTH
async def test_other_origins_get_nothing_and_wait_for_nothing(
    library: Any, chat: Gateway, room: Room
) -> None:
    auth = AttributionAuth(
        "https://gateway.example",
        identity=room.identity,
        room_connected=room.connected,
        connect_wait=None,
    )
    async with library.AsyncClient(auth=auth) as client:
        await client.get(chat.base_url)
    await asyncio.to_thread(_get_synchronously, library, auth, chat.base_url)
    assert identities(chat) == [AgentIdentity(), AgentIdentity()]
    assert chat.handshakes[0].session_id is None
    assert auth.records == ()


@BOTH
async def test_a_synchronous_client_sends_what_is_known_without_waiting(
    library: Any, chat: Gateway, room: Room
) -> None:
    auth = auth_for(chat, room, connect_wait=None)
    for _ in range(2):
        await asyncio.to_thread(_get_synchronously, library, auth, chat.base_url)
        room.connected.set()
    assert identities(chat) == [AgentIdentity("AJ_1", "RM_1"), AGENT]
    outcomes = [record.wait_outcome for record in auth.records]
    assert outcomes == [WaitOutcome.TIMED_OUT, WaitOutcome.ALREADY_CONNECTED]


@BOTH
async def test_a_trace_of_the_clients_own_goes_on(library: Any, chat: Gateway, room: Room) -> None:
    room.connected.set()
    seen: list[str] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        seen.append(event)

    def sync_trace(event: str, info: dict[str, Any]) -> None:
        seen.append(event)

    auth = auth_for(chat, room)
    async with library.AsyncClient(auth=auth) as client:
        await client.get(chat.base_url, extensions={"trace": trace})
    assert any(event.endswith("receive_response_headers.complete") for event in seen)
    seen.clear()
    extensions = {"trace": sync_trace}
    await asyncio.to_thread(_get_synchronously, library, auth, chat.base_url, extensions)
    assert any(event.endswith("receive_response_headers.complete") for event in seen)


def _get_synchronously(
    library: Any, auth: AttributionAuth, url: str, extensions: dict[str, Any] | None = None
) -> None:
    with library.Client(auth=auth) as client:
        client.get(url, extensions=extensions)
