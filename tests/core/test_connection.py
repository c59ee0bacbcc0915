from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import pytest
from helpers.support import Line, Room, events, own_records

from agent_conn import (
    AgentIdentity,
    AttributionLevel,
    AttributionUnavailable,
    ConfigurationError,
    ConnectionState,
    ConnectTimeout,
    Ending,
    HeaderNames,
    InferenceConnection,
    OpenHookFailed,
    Phase,
    StateChanged,
    StateError,
    TokenUnavailable,
    WaitOutcome,
)
from agent_conn.gateway import CloseWith, DropAfter, Gateway, Reject

pytestmark = pytest.mark.quick

AGENT = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")


async def test_entering_gives_a_websocket_of_aiohttps_and_leaving_closes_it(
    any_line: Line,
) -> None:
    connection = any_line.dial(identity=AGENT)
    async with connection as ws:
        assert isinstance(ws, aiohttp.ClientWebSocketResponse)
        assert connection.ws is ws
        assert connection.state == "open"
        await ws.send_str("hello")
        assert await ws.receive_str() == "hello"
    assert ws.closed
    assert connection.state == "closed"
    assert connection.record.close_code == 1000
    assert connection.record.ended is Ending.CLOSED_HERE
    assert connection.loss is None


async def test_awaiting_gives_the_websocket_too(line: Line) -> None:
    connection = line.dial()
    ws = await connection
    await ws.send_bytes(b"\x00")
    assert await ws.receive_bytes() == b"\x00"
    await connection.aclose()
    assert ws.closed


async def test_the_record_has_the_session_id_that_went_out_and_every_phase(line: Line) -> None:
    connection = line.dial(identity=AGENT, token="t0ken")
    async with connection:
        record = connection.record
    handshake = line.gateway.handshakes[-1]
    assert record.session_id == handshake.session_id
    assert record.attribution is AttributionLevel.AGENT
    assert record.identity == AGENT
    assert record.wait_outcome is WaitOutcome.NOT_REQUESTED
    assert (record.dials, record.pre_dialed, record.pre_dial) == (1, False, None)
    phases = [record.waited, record.minted, record.dialed, record.upgraded, record.opened]
    assert all(seconds is not None and seconds >= 0 for seconds in phases)
    assert (record.close_code, record.ended) == (None, None)


async def test_before_it_opens_the_record_says_what_is_not_known(line: Line) -> None:
    connection = line.dial(identity=AGENT)
    assert connection.attribution is AttributionLevel.NONE
    assert connection.record.identity is None
    assert connection.record.dialed is None
    assert connection.upgradable is False
    assert connection.loss is None


async def test_each_connection_has_a_session_id_of_its_own(line: Line) -> None:
    for _ in range(2):
        async with line.dial():
            pass
    first, second = (handshake.session_id for handshake in line.gateway.handshakes)
    assert first
    assert second
    assert first != second


async def test_headers_of_the_caller_and_of_the_session_go_out(line: Line) -> None:
    line.session.headers["X-Session"] = "1"
    async with line.dial(headers={"X-Mine": "2"}):
        headers = line.gateway.handshakes[-1].headers
    assert (headers["X-Session"], headers["X-Mine"]) == ("1", "2")


async def test_cookies_of_the_session_go_out(line: Line) -> None:
    async with line.dial():
        assert "Cookie" not in line.gateway.handshakes[-1].headers
    line.session.cookie_jar.update_cookies({"taste": "sweet"})
    async with line.dial():
        assert "Cookie" in line.gateway.handshakes[-1].headers


async def test_an_id_in_the_sessions_headers_never_stands_in_for_one_of_the_identity(
    line: Line,
) -> None:
    line.session.headers["x-livekit-agent-id"] = "PA_stale"
    async with line.dial(identity=AgentIdentity(job_id="AJ_1")) as _:
        sent = line.gateway.handshakes[-1].identity
    assert sent == AgentIdentity(job_id="AJ_1")


async def test_header_names_can_be_another_gateways(session: aiohttp.ClientSession) -> None:
    names = HeaderNames(agent_id="X-Acme-Agent", session_id="X-Acme-Session")
    async with Gateway(header_names=names) as gateway:
        connection = InferenceConnection(
            session, gateway.url("/v1/echo"), identity=AGENT, header_names=names
        )
        async with connection:
            handshake = gateway.handshakes[-1]
        assert handshake.identity == AGENT
        assert handshake.session_id == connection.record.session_id
        assert "X-LiveKit-Agent-ID" not in handshake.headers


@pytest.mark.parametrize("kind", ["str", "sync", "async"])
async def test_a_token_opens_a_gateway_that_asks_for_it(
    session: aiohttp.ClientSession, kind: str
) -> None:
    async def mint() -> str:
        await asyncio.sleep(0)
        return "t0ken"

    source: Any = {"str": "t0ken", "sync": lambda: "t0ken", "async": mint}[kind]
    async with (
        Gateway(token="t0ken") as gateway,
        InferenceConnection(session, gateway.url("/v1/echo"), token=source) as ws,
    ):
        await ws.send_str("in")
        assert await ws.receive_str() == "in"


async def test_a_token_is_minted_once_per_dial(line: Line) -> None:
    minted: list[int] = []

    def mint() -> str:
        minted.append(1)
        return "t0ken"

    for _ in range(2):
        async with line.dial(token=mint):
            pass
    assert len(minted) == 2


async def test_a_token_callable_that_raises_is_told_without_its_text(line: Line) -> None:
    def mint() -> str:
        raise LookupError("secret text")

    with pytest.raises(TokenUnavailable, match="LookupError") as failed:
        await line.dial(token=mint)
    assert failed.value.phase is Phase.TOKEN
    assert failed.value.retryable
    assert (failed.value.__cause__, failed.value.__context__) == (None, None)
    assert line.gateway.accepted == 0


async def test_a_token_callable_that_is_set_up_wrong_is_not_worth_a_retry(line: Line) -> None:
    def mint() -> str:
        raise ConfigurationError("no key")

    with pytest.raises(TokenUnavailable) as failed:
        await line.dial(token=mint)
    assert not failed.value.retryable


@pytest.mark.parametrize("token", [None, "", "two words", b"bytes", "line\nbreak"])
async def test_a_token_callable_that_gives_no_token_is_refused(line: Line, token: Any) -> None:
    with pytest.raises(TokenUnavailable) as failed:
        await line.dial(token=lambda: token)
    assert not failed.value.retryable


async def test_a_token_callable_that_hangs_is_bounded_by_open_timeout(line: Line) -> None:
    async def mint() -> str:
        await asyncio.Event().wait()
        return "t0ken"

    with pytest.raises(ConnectTimeout, match=r"0\.05 s ran out in token") as failed:
        await line.dial(token=mint, open_timeout=0.05)
    assert failed.value.phase is Phase.TOKEN
    assert isinstance(failed.value, TimeoutError)


async def test_on_open_that_turns_the_end_of_its_budget_into_an_error_is_still_a_timeout(
    line: Line,
) -> None:
    async def dawdle(ws: aiohttp.ClientWebSocketResponse) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    with pytest.raises(ConnectTimeout) as failed:
        await line.dial(on_open=dawdle, open_timeout=0.05)
    assert failed.value.phase is Phase.ON_OPEN


async def test_require_refuses_a_lower_attribution_before_anything_is_sent(
    line: Line, room: Room
) -> None:
    connection = line.dial(
        identity=room.identity,
        room_connected=room.connected,
        connect_wait=0.02,
        require=AttributionLevel.AGENT,
    )
    with pytest.raises(AttributionUnavailable, match=r"AGENT, got ROOM") as failed:
        await connection
    assert failed.value.phase is Phase.IDENTITY
    assert line.gateway.handshakes == []
    assert connection.state is ConnectionState.CLOSED


async def test_require_lets_its_own_level_pass(line: Line) -> None:
    async with line.dial(identity=AGENT, require=AttributionLevel.AGENT) as ws:
        assert not ws.closed


@pytest.mark.parametrize("source", [None, lambda: None, lambda: "PA_1"])
async def test_an_identity_that_is_none_costs_the_attribution_and_not_the_call(
    line: Line, source: Any
) -> None:
    connection = line.dial(identity=source)
    async with connection:
        assert connection.attribution is AttributionLevel.NONE


async def test_a_room_whose_wait_raises_costs_the_attribution_and_not_the_call(
    line: Line, room: Room
) -> None:
    class BrokenRoom:
        def is_set(self) -> bool:
            return False

        async def wait(self) -> None:
            raise OSError("the signalling is down")

    connection = line.dial(identity=room.identity, room_connected=BrokenRoom())
    async with connection as ws:
        assert not ws.closed
    assert connection.record.wait_outcome is WaitOutcome.FAILED
    assert connection.attribution is AttributionLevel.ROOM


async def test_the_identity_that_holds_once_the_dial_is_done_goes_out(any_line: Line) -> None:
    """Without a wait too: TCP and TLS take longer than a room may."""

    def read() -> AgentIdentity:
        return AGENT if any_line.gateway.accepted else AgentIdentity("AJ_1")

    connection = any_line.dial(identity=read)
    async with connection:
        assert connection.record.identity == AGENT
    assert any_line.gateway.handshakes[-1].identity == AGENT


async def test_upgradable_tells_that_a_better_identity_is_known_now(line: Line, room: Room) -> None:
    connection = line.dial(identity=room.identity)
    async with connection:
        assert connection.upgradable is False
        room.connected.set()
        assert connection.upgradable is True
        assert connection.attribution is AttributionLevel.ROOM


async def test_on_open_has_the_websocket_before_anyone_else(line: Line) -> None:
    states: list[ConnectionState] = []

    async def greet(ws: aiohttp.ClientWebSocketResponse) -> None:
        states.append(connection.state)
        with pytest.raises(StateError):
            connection.ws  # noqa: B018
        await ws.send_str("create")

    connection = line.dial(on_open=greet)
    async with connection as ws:
        assert await ws.receive_str() == "create"
    assert states == [ConnectionState.OPENING]


async def test_what_on_open_raises_is_the_cause_and_the_socket_is_closed(
    any_line: Line,
) -> None:
    async def fail(ws: aiohttp.ClientWebSocketResponse) -> None:
        raise LookupError("mine")

    connection = any_line.dial(on_open=fail)
    with pytest.raises(OpenHookFailed, match="LookupError") as failed:
        await connection
    assert isinstance(failed.value.__cause__, LookupError)
    assert failed.value.phase is Phase.ON_OPEN
    assert not failed.value.retryable
    assert connection.state is ConnectionState.CLOSED


async def test_on_open_that_fails_with_its_peer_is_worth_a_retry(line: Line) -> None:
    async def greet(ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.receive_str()

    line.gateway.inject(CloseWith(1011))
    with pytest.raises(OpenHookFailed) as failed:
        await line.dial(on_open=greet)
    assert failed.value.retryable


async def test_it_is_used_once(line: Line) -> None:
    connection = line.dial()
    async with connection:
        with pytest.raises(StateError, match="OPEN"):
            await connection
    with pytest.raises(StateError, match="CLOSED"):
        await connection


async def test_the_websocket_cannot_be_had_before_it_is_open(line: Line) -> None:
    with pytest.raises(StateError, match="IDLE"):
        line.dial().ws  # noqa: B018


async def test_closing_one_that_was_never_opened_ends_it(line: Line) -> None:
    connection = line.dial()
    await connection.aclose()
    await connection.aclose()
    assert connection.state is ConnectionState.CLOSED
    assert line.gateway.accepted == 0


async def test_several_tasks_may_close_it_at_once(line: Line) -> None:
    connection = line.dial()
    await connection
    await asyncio.gather(connection.aclose(), connection.aclose(), connection.aclose())
    assert connection.record.ended is Ending.CLOSED_HERE


async def test_closing_while_it_waits_for_the_room_ends_the_opening(line: Line) -> None:
    waiting = asyncio.Event()
    connection = line.dial(
        room_connected=asyncio.Event(), connect_wait=None, observer=lambda _: waiting.set()
    )
    opening = asyncio.create_task(_open(connection))
    await waiting.wait()
    await connection.aclose()
    assert connection.state is ConnectionState.CLOSED
    with pytest.raises(StateError, match="while it was being opened"):
        await opening


async def test_closing_from_within_on_open_ends_the_opening(line: Line) -> None:
    async def give_up(ws: aiohttp.ClientWebSocketResponse) -> None:
        await connection.aclose()
        await ws.receive()

    connection = line.dial(on_open=give_up)
    with pytest.raises(StateError, match="while it was being opened"):
        await connection
    assert connection.state is ConnectionState.CLOSED


async def test_closing_in_the_tick_in_which_the_room_connects_still_ends_the_opening(
    line: Line, room: Room
) -> None:
    waiting = asyncio.Event()
    connection = line.dial(
        room_connected=room.connected, connect_wait=None, observer=lambda _: waiting.set()
    )
    opening = asyncio.create_task(_open(connection))
    await waiting.wait()
    room.connected.set()
    await connection.aclose()
    with pytest.raises(StateError):
        await opening


async def test_a_closed_session_is_told(gateway: Gateway) -> None:
    client = aiohttp.ClientSession()
    connection = InferenceConnection(client, gateway.url())
    await client.close()
    with pytest.raises(Exception, match="session is closed") as failed:
        await connection
    assert getattr(failed.value, "retryable", None) is False


async def test_the_observer_sees_every_change_with_its_record(line: Line, room: Room) -> None:
    seen: list[StateChanged] = []
    connection = line.dial(
        identity=room.identity,
        room_connected=room.connected,
        observer=seen.append,
        on_open=_nothing_to_do,
    )
    asyncio.get_running_loop().call_soon(room.connected.set)
    async with connection:
        pass
    assert [change.state for change in seen] == [
        ConnectionState.WAITING,
        ConnectionState.DIALING,
        ConnectionState.OPENING,
        ConnectionState.OPEN,
        ConnectionState.CLOSING,
        ConnectionState.CLOSED,
    ]
    assert [change.previous for change in seen[1:]] == [change.state for change in seen[:-1]]
    assert [change.at for change in seen] == sorted(change.at for change in seen)
    assert seen[-1].record == connection.record
    assert all(change.error is None for change in seen)


async def test_the_observer_is_told_why_it_failed(line: Line) -> None:
    seen: list[StateChanged] = []
    line.gateway.inject(Reject(401))
    with pytest.raises(Exception, match="401") as failed:
        await line.dial(observer=seen.append)
    assert [change.error for change in seen][-2:] == [failed.value, failed.value]


async def test_an_observer_that_raises_is_logged_and_ignored(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(_: StateChanged) -> None:
        raise LookupError

    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        async with line.dial(observer=observe) as ws:
            assert not ws.closed
    assert set(events(caplog)) == {"observer_failed"}


async def test_an_opening_is_logged_with_its_attribution(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="agent_conn"):
        connection = line.dial(identity=AGENT)
        async with connection:
            pass
    (opened,) = own_records(caplog)
    shown = f"connection_opened: session_id={connection.record.session_id}, attribution=AGENT, "
    assert opened.getMessage().startswith(shown)
    assert vars(opened)["attribution"] == "AGENT"
    assert vars(opened)["session_id"] == connection.record.session_id


@pytest.mark.parametrize(
    ("fault", "code", "ending"),
    [
        (CloseWith(1011), 1011, Ending.CLOSED_BY_PEER),
        (CloseWith(1001), 1001, Ending.CLOSED_BY_PEER),
        (DropAfter(), 1006, Ending.LOST),
        (DropAfter(reset=True), 1006, Ending.LOST),
    ],
)
@pytest.mark.parametrize("reading", [True, False])
async def test_a_loss_that_ends_the_loop_quietly_is_told_by_the_connection(
    any_line: Line, fault: Any, code: int, ending: Ending, reading: bool
) -> None:
    connection = any_line.dial()
    async with connection as ws:
        any_line.gateway.connections[-1].inject(fault)
        if reading:
            assert [message async for message in ws] == []
            assert connection.loss is not None
            assert connection.loss.code == code
        else:
            await any_line.gateway.wait_until(lambda: not any_line.gateway.connections)
    assert connection.record.ended is ending
    assert connection.record.close_code == code
    assert connection.loss is not None
    assert connection.loss.code == code


async def test_a_message_over_the_limit_is_not_told_as_the_peers_close(line: Line) -> None:
    connection = line.dial(max_msg_size=16)
    async with connection as ws:
        await ws.send_bytes(bytes(17))
        assert (await ws.receive()).type is aiohttp.WSMsgType.ERROR
    assert connection.loss is not None
    assert connection.loss.code == 1009
    assert connection.loss.reason == "Message size 17 exceeds limit 16 (max_msg_size)"


async def test_a_normal_close_by_the_peer_is_no_loss(line: Line) -> None:
    connection = line.dial()
    async with connection as ws:
        line.gateway.connections[-1].inject(CloseWith(1000))
        assert [message async for message in ws] == []
        assert connection.loss is None
    assert connection.record.ended is Ending.CLOSED_BY_PEER
    assert connection.loss is None


async def _open(connection: InferenceConnection) -> object:
    return await connection


async def _nothing_to_do(ws: aiohttp.ClientWebSocketResponse) -> None:
    """An on_open hook without a job."""


async def test_an_on_open_that_is_not_async_is_refused_when_it_is_called(line: Line) -> None:
    def hook(_: aiohttp.ClientWebSocketResponse) -> None:
        """Return nothing to await."""

    with pytest.raises(ConfigurationError, match=r"on_open must be async, got .* None"):
        await line.dial(on_open=hook)


async def test_an_identity_that_gives_a_coroutine_leaves_every_id_out(line: Line) -> None:
    async def identify() -> AgentIdentity:
        return AGENT

    connection = line.dial(identity=lambda: identify())  # noqa: PLW0108  (no async def to see)
    async with connection:
        assert connection.attribution is AttributionLevel.NONE
        assert connection.record.identity is not None
        assert connection.record.identity.omitted["agent_id"] == "identity gave coroutine"


@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
async def test_a_connector_that_closes_what_it_gets_back_dials_for_the_request(
    gateway: Gateway, room: Room, waits: bool
) -> None:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        connection = InferenceConnection(
            session,
            gateway.url("/v1/echo"),
            room_connected=room.connected if waits else None,
            connect_wait=0.01,
        )
        async with connection as ws:
            await ws.send_str("heard")
            assert await ws.receive_str() == "heard"
        assert (connection.record.dials, connection.record.pre_dialed) == (1, False)
    assert gateway.accepted == 1


async def test_before_its_url_is_read_a_connection_shows_none(
    session: aiohttp.ClientSession,
) -> None:
    connection = InferenceConnection(session, lambda: "wss://gateway.example/v1")
    assert "a url that is not read yet" in repr(connection)
    assert str(connection.url) == ""
