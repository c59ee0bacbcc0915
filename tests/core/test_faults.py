"""Every fault of the gateway: a typed error in time, a close in time, and nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from helpers.support import Line, Stopwatch, open_line

from agent_conn import (
    AgentConnError,
    ConnectError,
    ConnectTimeout,
    DialFailed,
    Ending,
    HandshakeInvalid,
    HandshakeRejected,
    OpenHookFailed,
    Phase,
)
from agent_conn.gateway import (
    FAULTS,
    AcceptAndClose,
    BadAccept,
    CloseWith,
    ConcurrencyLimit,
    DropAfter,
    DropHandshake,
    Fault,
    Garbage,
    GoSilent,
    IdleTimeout,
    IgnoreClose,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    SessionLimit,
    StallAtAccept,
    StallAtTLS,
    StallInHandshake,
    StopReading,
    UnaskedExtension,
    UnaskedSubprotocol,
)

BUDGET = 0.3
CLOSE = 0.2
MARGIN = 0.1


@dataclass(frozen=True)
class Refusal:
    """What becomes of a dial under a fault; the phase can differ with TLS."""

    fault: Fault
    error: type[ConnectError]
    plain: Phase | None
    tls: Phase
    retryable: bool


REFUSALS = [
    Refusal(StallAtAccept(), ConnectTimeout, Phase.DIAL, Phase.DIAL, True),
    Refusal(StallAtTLS(), ConnectTimeout, Phase.HANDSHAKE, Phase.DIAL, True),
    Refusal(StallInHandshake(), ConnectTimeout, Phase.HANDSHAKE, Phase.HANDSHAKE, True),
    # None: whether the reset comes before connect() returns is the kernel's to say.
    Refusal(Reset("accept"), DialFailed, None, Phase.DIAL, True),
    Refusal(Reset("tls"), DialFailed, Phase.HANDSHAKE, Phase.DIAL, True),
    Refusal(Reset("handshake"), DialFailed, Phase.HANDSHAKE, Phase.HANDSHAKE, True),
    Refusal(DropHandshake(), DialFailed, Phase.HANDSHAKE, Phase.HANDSHAKE, True),
    Refusal(Garbage(), HandshakeInvalid, Phase.HANDSHAKE, Phase.HANDSHAKE, False),
    Refusal(Reject(401), HandshakeRejected, Phase.HANDSHAKE, Phase.HANDSHAKE, False),
    Refusal(Reject(503), HandshakeRejected, Phase.HANDSHAKE, Phase.HANDSHAKE, True),
    Refusal(ConcurrencyLimit(0), HandshakeRejected, Phase.HANDSHAKE, Phase.HANDSHAKE, True),
    Refusal(
        Redirect("http://127.0.0.1:1/"), HandshakeInvalid, Phase.HANDSHAKE, Phase.HANDSHAKE, False
    ),
    Refusal(BadAccept(), HandshakeInvalid, Phase.HANDSHAKE, Phase.HANDSHAKE, False),
    Refusal(UnaskedExtension(), HandshakeInvalid, Phase.HANDSHAKE, Phase.HANDSHAKE, False),
    Refusal(UnaskedSubprotocol(), HandshakeInvalid, Phase.HANDSHAKE, Phase.HANDSHAKE, False),
    Refusal(NotWebSocket(), HandshakeInvalid, Phase.HANDSHAKE, Phase.HANDSHAKE, False),
]

OPEN_FAULTS: list[tuple[Fault, Ending]] = [
    (Reset("open"), Ending.LOST),
    (AcceptAndClose(), Ending.CLOSED_BY_PEER),
    (CloseWith(1011), Ending.CLOSED_BY_PEER),
    (GoSilent(), Ending.ABORTED),
    (StopReading(), Ending.ABORTED),
    (IgnoreClose(), Ending.ABORTED),
    (DropAfter(), Ending.LOST),
    (DropAfter(reset=True), Ending.LOST),
]

LIMITS: list[Fault] = [IdleTimeout(0.05), SessionLimit(0.05)]


def test_every_fault_of_the_gateway_is_here() -> None:
    here = {type(refusal.fault) for refusal in REFUSALS} | {type(fault) for fault in LIMITS}
    here |= {type(fault) for fault, _ in OPEN_FAULTS}
    assert here == set(FAULTS)


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def tls_and_line(
    request: pytest.FixtureRequest, loop_reports: list[object]
) -> AsyncIterator[tuple[bool, Line]]:
    async with open_line(tls=request.param) as line:
        yield request.param, line


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: repr(refusal.fault))
@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
async def test_a_dial_under_a_fault_ends_in_its_error_in_its_phase_and_in_time(
    tls_and_line: tuple[bool, Line], refusal: Refusal, waits: bool
) -> None:
    tls, line = tls_and_line
    # Twice, for the cold dial that replaces a pre-dial.
    injection = line.gateway.inject(refusal.fault, times=None)
    never = asyncio.Event() if waits else None
    connection = line.dial(
        room_connected=never, connect_wait=0.05, open_timeout=BUDGET, close_timeout=CLOSE
    )
    async with Stopwatch() as opening:
        with pytest.raises(refusal.error) as failed:
            await connection
    assert type(failed.value) is refusal.error
    expected = refusal.tls if tls else refusal.plain
    assert expected is failed.value.phase or expected is None
    assert failed.value.retryable is refusal.retryable
    assert opening.elapsed <= (0.05 if waits else 0.0) + BUDGET + MARGIN
    async with Stopwatch() as closing:
        await connection.aclose()
    assert closing.elapsed <= MARGIN
    injection.withdraw()


@pytest.mark.parametrize(("fault", "ending"), OPEN_FAULTS, ids=repr)
async def test_an_open_connection_under_a_fault_closes_in_time_and_tells_how_it_ended(
    tls_and_line: tuple[bool, Line], fault: Fault, ending: Ending
) -> None:
    _, line = tls_and_line
    line.gateway.inject(fault)
    connection = line.dial(open_timeout=BUDGET, close_timeout=CLOSE)
    await connection
    async with Stopwatch() as closing:
        await connection.aclose()
    assert closing.elapsed <= CLOSE + MARGIN
    assert connection.record.ended in {ending, Ending.LOST}
    assert (connection.loss is not None) is (connection.record.ended is not Ending.ABORTED)


@pytest.mark.parametrize("fault", LIMITS, ids=repr)
async def test_a_limit_that_is_reached_is_told_as_the_peers_close(
    tls_and_line: tuple[bool, Line], fault: Fault
) -> None:
    _, line = tls_and_line
    line.gateway.inject(fault)
    connection = line.dial(open_timeout=BUDGET, close_timeout=CLOSE)
    ws = await connection
    async with asyncio.timeout(2):
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
    await connection.aclose()
    assert connection.record.ended is Ending.CLOSED_BY_PEER
    assert connection.loss is not None


@pytest.mark.parametrize("fault", [GoSilent(), IgnoreClose(), StopReading()], ids=repr)
async def test_an_on_open_that_a_fault_holds_up_is_bounded_by_the_same_budget(
    tls_and_line: tuple[bool, Line], fault: Fault
) -> None:
    async def flood(ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await ws.send_bytes(b"\x00" * 65_536)
            await ws.receive() if isinstance(fault, GoSilent) else None

    _, line = tls_and_line
    line.gateway.inject(fault)
    connection = line.dial(on_open=flood, open_timeout=BUDGET, close_timeout=CLOSE)
    async with Stopwatch() as opening:
        with pytest.raises(ConnectTimeout) as failed:
            await connection
    assert failed.value.phase is Phase.ON_OPEN
    assert opening.elapsed <= BUDGET + MARGIN


@pytest.mark.parametrize("fault", [AcceptAndClose(), Reset("open"), DropAfter()], ids=repr)
async def test_an_on_open_whose_peer_goes_away_is_told_as_its_failure(
    tls_and_line: tuple[bool, Line], fault: Fault
) -> None:
    async def expect_an_answer(ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.receive_str()

    _, line = tls_and_line
    line.gateway.inject(fault)
    with pytest.raises(OpenHookFailed) as failed:
        await line.dial(on_open=expect_an_answer, open_timeout=BUDGET, close_timeout=CLOSE)
    assert failed.value.retryable


async def test_a_rejection_carries_its_quota_and_body(line: Line) -> None:
    body = (
        b'{"type": "inference_quota_exceeded", "hint": "wait", "quota_type": "rpm",'
        b' "category": "stt", "remaining_limit": 0, "documentation_url": "https://docs"}'
    )
    headers = {"Retry-After": "2", "X-LiveKit-Inference-TPM-Used": "9"}
    line.gateway.inject(Reject(429, headers, body))
    with pytest.raises(HandshakeRejected) as rejected:
        await line.dial()
    assert rejected.value.body == body.decode()
    assert rejected.value.retry_after == 2.0
    quota = rejected.value.quota
    assert quota is not None
    assert (quota.hint, quota.quota_type, quota.category) == ("wait", "rpm", "stt")
    assert (quota.remaining_limit, quota.documentation_url) == ("0", "https://docs")
    assert dict(quota.limits) == {"TPM-Used": "9"}


async def test_a_long_body_is_cut_at_two_kibibytes(line: Line) -> None:
    line.gateway.inject(Reject(500, {}, b"x" * 10_000))
    with pytest.raises(HandshakeRejected) as rejected:
        await line.dial()
    assert rejected.value.body == "x" * 2048


async def test_nothing_is_dialled_twice_and_a_redirect_is_not_followed(line: Line) -> None:
    for fault in (Redirect(line.gateway.url("/v1/stt")), DropHandshake(), Reset("handshake")):
        before = line.gateway.accepted
        line.gateway.inject(fault)
        with pytest.raises(AgentConnError):
            await line.dial()
        assert line.gateway.accepted == before + 1
    assert {handshake.path for handshake in line.gateway.handshakes} == {"/v1/echo"}
