"""Which endpoint is dialled, and when: decided without a socket, on a clock that is handed in."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from agent_conn import (
    AgentConnError,
    AttributionUnavailable,
    ConfigurationError,
    ConnectionLost,
    ConnectTimeout,
    DialFailed,
    HandshakeInvalid,
    HandshakeRejected,
    OpenHookFailed,
    Phase,
    TokenUnavailable,
)
from agent_conn._dial.endpoint_health import (
    FAILURES,
    HEAD_START,
    REST,
    EndpointHealth,
    answer_by,
    begins_at,
    is_endpoints_fault,
)

LONGEST_REST = REST * 1.2
SHORTEST_REST = REST * 0.8


def health(count: int = 3, draw: Callable[[], float] = lambda: 0.5) -> EndpointHealth:
    return EndpointHealth(count, draw)


def order(of: EndpointHealth, now: float = 0.0) -> list[int]:
    """The endpoints that one dial would try if each failed."""
    tried: list[int] = []
    while (place := of.choose(tried, now)) is not None:
        tried.append(place)
    return tried


def fail(of: EndpointHealth, place: int, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        of.failed(place, now)


def hook_failed(loss: ConnectionLost | None) -> OpenHookFailed:
    failure = OpenHookFailed("on_open raised")
    failure.loss = loss
    return failure


def certificate_refused() -> DialFailed:
    failure = DialFailed("TLS", retryable=False)
    failure.certificate_refused = True
    return failure


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (DialFailed("TCP: refused"), True),
        (DialFailed("hung up", phase=Phase.HANDSHAKE), True),
        (certificate_refused(), True),
        (DialFailed("the session is closed", retryable=False), False),
        (DialFailed("the proxy answered 407", retryable=False), False),
        (HandshakeRejected("", status=500), True),
        (HandshakeRejected("", status=503), True),
        (HandshakeRejected("", status=401), False),
        (HandshakeRejected("", status=408), False),
        (HandshakeRejected("", status=429), False),
        (HandshakeInvalid("a redirect"), False),
        (ConnectTimeout("", phase=Phase.DIAL), True),
        (ConnectTimeout("", phase=Phase.HANDSHAKE), True),
        (ConnectTimeout("", phase=Phase.ON_OPEN), True),
        (ConnectTimeout("", phase=Phase.TOKEN), False),
        (TokenUnavailable(""), False),
        (AttributionUnavailable(""), False),
        (hook_failed(None), False),
        (hook_failed(ConnectionLost(code=1012)), True),
        (hook_failed(ConnectionLost(code=4000)), False),
        (ConfigurationError(""), False),
        *[(ConnectionLost(code=code), True) for code in (1006, 1012, 1013)],
        *[(ConnectionLost(code=code), False) for code in (1000, 1001, 1008, 1011, 4429)],
    ],
    ids=repr,
)
def test_what_is_an_endpoints_fault(error: AgentConnError, fault: bool) -> None:
    assert is_endpoints_fault(error) is fault


@pytest.mark.parametrize(
    ("last_began", "connected", "at"),
    [
        (-math.inf, False, -math.inf),
        (10.0, False, 10.0 + HEAD_START),
        (10.0, True, math.inf),
        (-math.inf, True, math.inf),
    ],
)
def test_when_the_next_is_dialled(last_began: float, connected: bool, at: float) -> None:
    assert HEAD_START == 0.25
    assert begins_at(last_began, connected=connected) == at


@pytest.mark.parametrize(
    ("deadline", "left", "at"),
    [(12.0, 2, 11.0), (13.0, 3, 11.0), (12.0, 1, None), (None, 2, None)],
)
def test_until_when_an_endpoint_may_answer(
    deadline: float | None, left: int, at: float | None
) -> None:
    assert answer_by(10.0, deadline, left) == at


def test_the_first_is_dialled_first_and_then_the_others_in_their_order() -> None:
    assert order(health(1)) == [0]
    assert order(health(4)) == [0, 1, 2, 3]


def test_after_a_failure_the_next_is_the_current_one() -> None:
    three = health()
    three.failed(0, 0.0)
    assert order(three) == [1, 2, 0]
    three.failed(1, 0.0)
    assert order(three) == [2, 0, 1]
    three.failed(2, 0.0)
    assert order(three) == [0, 1, 2]


def test_what_works_is_a_current_one_that_has_not_failed() -> None:
    two = health(2)
    assert two.works()
    two.failed(0, 0.0)
    assert two.works()
    two.failed(1, 0.0)
    assert not two.works()
    two.opened(1)
    assert two.works()


def test_a_failure_of_another_leaves_the_current_one() -> None:
    three = health()
    three.failed(1, 0.0)
    assert order(three) == [0, 1, 2]


@pytest.mark.parametrize("failing", [(0, 1), (1, 0)])
def test_who_opened_is_the_current_one_whatever_order_the_others_failed_in(
    failing: tuple[int, int],
) -> None:
    three = health()
    for place in failing:
        three.failed(place, 0.0)
    three.opened(2)
    assert order(three) == [2, 0, 1]


def test_a_late_success_of_another_does_not_move_the_current_one() -> None:
    three = health()
    three.opened(2)
    assert order(three) == [0, 1, 2]


def test_five_failures_in_a_row_eject_an_endpoint() -> None:
    three = health()
    three.failed(0, 0.0)
    three.opened(1)
    fail(three, 2, FAILURES - 1)
    assert order(three) == [1, 2, 0]
    three.failed(2, 0.0)
    assert order(three) == [1, 0, 2]
    assert order(three, LONGEST_REST) == [0, 1, 2]


def test_a_success_in_between_begins_the_row_anew() -> None:
    two = health(2)
    fail(two, 1, FAILURES - 1)
    two.opened(1)
    fail(two, 1, FAILURES - 1)
    assert not two.ejected(1, 0.0)
    two.failed(1, 0.0)
    assert two.ejected(1, 0.0)


@pytest.mark.parametrize(("draw", "rest"), [(0.0, SHORTEST_REST), (0.5, REST), (1.0, LONGEST_REST)])
def test_the_rest_lasts_thirty_seconds_give_or_take_a_fifth(draw: float, rest: float) -> None:
    two = health(2, lambda: draw)
    fail(two, 0, FAILURES, now=100.0)
    assert order(two, 100.0 + rest - 0.01) == [1, 0]
    assert order(two, 100.0 + rest + 0.01) == [0, 1]


def test_after_its_rest_one_dial_alone_tries_it() -> None:
    two = health(2)
    fail(two, 0, FAILURES)
    two.opened(1)
    assert two.choose([], REST) == 0
    two.began(0, REST)
    assert order(two, REST) == [1, 0]
    assert two.ejected(0, REST + 1.0)
    two.failed(0, REST + 2.0)
    assert order(two, 2 * REST) == [1, 0]
    assert order(two, 2 * REST + 2.0) == [0, 1]


def test_one_that_opens_after_its_rest_is_the_current_one_again() -> None:
    two = health(2)
    fail(two, 0, FAILURES)
    two.opened(1)
    two.began(0, REST)
    two.opened(0)
    assert order(two, REST) == [0, 1]
    assert not two.ejected(0, REST)


def test_one_that_failed_once_is_tried_again_after_a_rest_if_it_is_preferred() -> None:
    two = health(2)
    two.failed(0, 0.0)
    two.opened(1)
    assert order(two, REST - 1.0) == [1, 0]
    assert order(two, REST) == [0, 1]


def test_the_current_one_is_not_left_for_one_that_is_preferred_less() -> None:
    two = health(2)
    fail(two, 1, FAILURES)
    assert order(two, 10 * REST) == [0, 1]


def test_where_all_are_ejected_each_is_tried_all_the_same() -> None:
    three = health()
    for place in range(3):
        fail(three, place, FAILURES, now=float(place))
    assert all(three.ejected(place, 5.0) for place in range(3))
    assert sorted(order(three, 5.0)) == [0, 1, 2]
    three.opened(1)
    assert order(three, 5.0)[0] == 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happened_a_dial_tries_each_once(seed: int) -> None:
    dice = random.Random(seed)
    some = health(4, dice.random)
    now = 0.0
    for _ in range(200):
        now += dice.random() * 10
        what: Any = dice.choice([some.failed, some.began, lambda place, _: some.opened(place)])
        what(dice.randrange(4), now)
        assert sorted(order(some, now)) == [0, 1, 2, 3]
        assert not some.ejected(order(some, now)[0], now) or all(
            some.ejected(place, now) for place in range(4)
        )
