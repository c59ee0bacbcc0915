from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_conn import (
    AgentConnError,
    AttributionUnavailable,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DialFailed,
    HandshakeInvalid,
    HandshakeRejected,
    OpenHookFailed,
    Phase,
    Quota,
    RetriesExhausted,
    RetryPolicy,
    StateError,
    TokenUnavailable,
    classify_failure,
)
from agent_conn._dial.translate import rejected
from agent_conn._reconnect.retry import RetryBudget, is_outage
from agent_conn._secrets import Secrets

pytestmark = pytest.mark.quick

RETRIED_STATUSES = {408, 429, *range(500, 600)}
RETRIED_CLOSES = {1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4429}


def most() -> float:
    """A random source whose every jitter is the longest."""
    return 1.0


def lost(code: int = 1011) -> ConnectionLost:
    return ConnectionLost(code=code)


def hook_failed(code: int, *, retryable: bool = True) -> OpenHookFailed:
    """What is known where a connection ended under its hook with ``code``."""
    error = OpenHookFailed(retryable=retryable)
    error.loss = lost(code)
    return error


def rejected_for(category: str | None) -> HandshakeRejected:
    return HandshakeRejected(status=429, quota=Quota(category=category), retryable=True)


@pytest.mark.parametrize("status", range(400, 600))
def test_a_rejection_is_retried_by_its_status(status: int) -> None:
    assert classify_failure(rejected(status, {}, b"", Secrets())) is (status in RETRIED_STATUSES)


@pytest.mark.parametrize("code", [*range(1000, 1016), 3000, 3008, 4000, 4004, 4408, 4429, 4999])
def test_a_loss_is_retried_by_its_close_code(code: int) -> None:
    assert classify_failure(lost(code)) is (code in RETRIED_CLOSES)


@pytest.mark.parametrize("phase", Phase)
def test_a_timeout_is_retried_in_whatever_phase(phase: Phase) -> None:
    assert classify_failure(ConnectTimeout(phase=phase))


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (DialFailed(), True),
        (DialFailed(retryable=False), False),
        (HandshakeInvalid(), False),
        (TokenUnavailable(retryable=True), True),
        (TokenUnavailable(), False),
        (OpenHookFailed(retryable=True), True),
        (OpenHookFailed(), False),
        (hook_failed(1012), True),
        (hook_failed(4004), False),
        (hook_failed(1008), False),
        (hook_failed(1011, retryable=False), False),
        (rejected_for("MaxGatewayCredits"), False),
        (rejected_for("maxgatewaycreditsperday"), False),
        (rejected_for("MaxConcurrentGatewaySTT"), True),
        (rejected_for("MaxGatewayLLMRpm"), True),
        (rejected_for("SomethingNew"), True),
        (rejected_for(None), True),
        (AttributionUnavailable(retryable=True), True),
        (ConfigurationError(), False),
        (StateError(), False),
        (RetriesExhausted(), False),
        (AgentConnError(), False),
    ],
    ids=repr,
)
def test_every_other_class_of_error_has_its_verdict(error: AgentConnError, retried: bool) -> None:
    assert classify_failure(error) is retried


def test_no_class_of_error_is_forgotten() -> None:
    def below(base: type[AgentConnError]) -> Iterator[type[AgentConnError]]:
        for cls in base.__subclasses__():
            if cls.__module__ == AgentConnError.__module__:
                yield cls
                yield from below(cls)

    names = {cls.__name__ for cls in below(AgentConnError)}
    docstring = classify_failure.__doc__ or ""
    assert {name for name in names if name not in docstring and not name.startswith("Pool")} == {
        "ConnectError",
        "RetriesExhausted",
    }


@pytest.mark.parametrize(
    ("verdict", "code", "retried"), [(True, 1008, True), (False, 1011, False), (None, 1011, True)]
)
def test_a_classify_hook_decides_and_may_leave_it_to_the_policy(
    verdict: bool | None, code: int, retried: bool
) -> None:
    assert RetryPolicy(classify=lambda _: verdict).retries(lost(code)) is retried


def test_ceilings_double_up_to_the_cap() -> None:
    policy = RetryPolicy(initial=0.5, cap=3.0)
    assert list(islice(policy.ceilings(), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_delays_are_a_random_part_of_the_ceiling() -> None:
    draws = iter([0.0, 0.5, 1.0])
    budget = RetryBudget(RetryPolicy(initial=1.0), draws.__next__)
    assert [budget.failed(DialFailed(retryable=True)).seconds for _ in range(3)] == [0, 1, 4]


@given(
    initial=st.floats(0, 1e6),
    cap=st.floats(0, 1e6),
    lives=st.lists(st.one_of(st.none(), st.floats(0, 1e4)), min_size=1, max_size=60),
    draw=st.floats(0, 1),
)
def test_no_delay_is_above_the_cap_or_below_zero(
    initial: float, cap: float, lives: list[float | None], draw: float
) -> None:
    budget = RetryBudget(RetryPolicy(attempts=None, initial=initial, cap=cap), lambda: draw)
    for lived in lives:
        failed = lived is None
        pause = budget.failed(DialFailed()) if failed else budget.lost(lost(1012), lived or 0.0)
        assert 0 <= pause.seconds <= cap
        assert pause.least == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 1.5},
        {"attempts": "many"},
        {"share_health": 1},
        {"restart_spread": -0.5},
        {"initial": -1},
        {"initial": True},
        {"cap": math.inf},
        {"cap": "1"},
        {"retry_after_cap": math.nan},
        {"initial": 10**400},
        {"classify": 1},
    ],
    ids=repr,
)
def test_a_wrong_value_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_a_retry_after_is_a_lower_bound_up_to_its_cap_and_has_jitter_above(draw: float) -> None:
    budget = RetryBudget(RetryPolicy(initial=1.0, retry_after_cap=60.0), lambda: draw)
    assert budget.failed(ConnectError(retryable=True, retry_after=2.0)) == (2.0 + draw, 2.0)
    assert budget.failed(ConnectError(retryable=True, retry_after=3600.0)) == (60 + 2 * draw, 60.0)


def test_a_classify_hook_that_gives_something_else_is_refused() -> None:
    classify: Any = lambda _: "yes"  # noqa: E731
    with pytest.raises(ConfigurationError, match="classify must return True, False or None, got"):
        RetryPolicy(classify=classify).retries(lost())


def test_the_budget_ends_with_every_failures_error() -> None:
    budget = RetryBudget(RetryPolicy(attempts=3), most)
    errors = [DialFailed(str(number)) for number in range(4)]
    for error in errors[:3]:
        budget.failed(error)
    with pytest.raises(RetriesExhausted, match="all 3 redials") as caught:
        budget.failed(errors[3])
    assert caught.value.attempts == tuple(errors)
    assert caught.value.last is errors[3]
    assert [error.attempt for error in errors] == [1, 2, 3, 4]


def test_without_a_limit_the_budget_never_ends() -> None:
    budget = RetryBudget(RetryPolicy(attempts=None), most)
    for _ in range(5_000):
        budget.failed(DialFailed())
        budget.lost(lost(), 0.0)
    assert budget.left is None


def lose_for_ever(budget: RetryBudget) -> None:
    while True:
        budget.lost(lost(), 0.0)


def test_few_errors_are_kept() -> None:
    budget = RetryBudget(RetryPolicy(), most)
    for _ in range(200):
        budget.lost(lost(), 2.3)
    with pytest.raises(RetriesExhausted) as caught:
        lose_for_ever(budget)
    assert len(caught.value.attempts) == 100


def test_a_final_failure_is_raised_as_it_is() -> None:
    error = HandshakeRejected(status=401)
    with pytest.raises(HandshakeRejected) as caught:
        RetryBudget(RetryPolicy(), most).failed(error)
    assert caught.value is error


@pytest.mark.parametrize("lived", [0.0, 3600.0])
def test_a_final_loss_is_raised_however_long_the_connection_lived(lived: float) -> None:
    with pytest.raises(ConnectionLost):
        RetryBudget(RetryPolicy(), most).lost(lost(1008), lived)


def test_each_second_gives_back_a_sixtieth_of_the_budget() -> None:
    budget = RetryBudget(RetryPolicy(attempts=30), most)
    for _ in range(10):
        budget.failed(DialFailed())
    assert budget.left == 20
    budget.lost(lost(), 8.0)
    assert budget.left == pytest.approx(20 + 4 - 1)
    budget.lost(lost(), 3600.0)
    assert budget.left == 29


def test_a_budget_that_is_whole_again_keeps_no_old_errors() -> None:
    budget = RetryBudget(RetryPolicy(attempts=1), most)
    budget.failed(DialFailed("old"))
    budget.lost(lost(), 60.0)
    with pytest.raises(RetriesExhausted) as caught:
        budget.failed(DialFailed("new"))
    assert [type(one) for one in caught.value.attempts] == [ConnectionLost, DialFailed]


def test_lives_shorter_than_their_ceiling_are_redialled_ever_slower() -> None:
    budget = RetryBudget(RetryPolicy(), most)
    delays = [budget.lost(lost(), 0.5).seconds for _ in range(7)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


@pytest.mark.parametrize("failures", [0, 1, 10])
def test_a_long_life_is_redialled_at_once_and_sets_the_ceiling_back(failures: int) -> None:
    budget = RetryBudget(RetryPolicy(), most)
    for _ in range(failures):
        budget.failed(DialFailed())
    assert budget.lost(lost(), 2.4).seconds == 0.0
    assert budget.failed(DialFailed()).seconds == 1.0


@pytest.mark.parametrize("code", [1012, 1013])
@pytest.mark.parametrize("draw", [0.0, 0.3, 1.0])
def test_after_a_restart_a_redial_waits_a_random_part_of_its_spread(code: int, draw: float) -> None:
    budget = RetryBudget(RetryPolicy(restart_spread=5.0), lambda: draw)
    assert budget.lost(lost(code), 3600.0).seconds == 5.0 * draw
    assert budget.lost(lost(1011), 3600.0).seconds == 0.0


def test_a_restart_waits_no_longer_than_the_policys_cap() -> None:
    budget = RetryBudget(RetryPolicy(initial=0.0, cap=0.5), most)
    assert budget.lost(lost(1012), 3600.0).seconds == 0.5


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (DialFailed(), True),
        (ConnectTimeout(phase=Phase.DIAL), True),
        (ConnectTimeout(phase=Phase.HANDSHAKE), True),
        (HandshakeRejected(status=503), True),
        (HandshakeRejected(status=429), False),
        (ConnectTimeout(phase=Phase.TOKEN), False),
        (ConnectTimeout(phase=Phase.ON_OPEN), False),
        (TokenUnavailable(retryable=True), False),
        (OpenHookFailed(retryable=True), False),
    ],
    ids=repr,
)
def test_only_what_an_origin_itself_refuses_counts_as_its_outage(
    error: AgentConnError, outage: bool
) -> None:
    assert is_outage(error) is outage
