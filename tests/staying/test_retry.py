from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice, pairwise
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
    RetriesExhausted,
    RetryPolicy,
    StateError,
    TokenUnavailable,
    classify_failure,
)
from agent_conn._dial.translate import rejected
from agent_conn._reconnect.retry import RetryBudget
from agent_conn._secrets import Secrets

RETRIED_STATUSES = {408, 429, *range(500, 600)}
RETRIED_CLOSES = {1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014}


def most() -> float:
    """A random source whose every jitter is the longest."""
    return 1.0


def lost(code: int = 1011) -> ConnectionLost:
    return ConnectionLost(code=code)


@pytest.mark.parametrize("status", range(400, 600))
def test_a_rejection_is_retried_by_its_status(status: int) -> None:
    assert classify_failure(rejected(status, {}, b"", Secrets())) is (status in RETRIED_STATUSES)


@pytest.mark.parametrize("code", [*range(1000, 1016), 3000, 3008, 4000, 4999])
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


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    policy = RetryPolicy(initial=0.5, factor=2.0, cap=3.0)
    assert list(islice(policy.delays(most), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_delays_are_jittered_down_to_nothing() -> None:
    draws = iter([0.0, 0.5, 1.0])
    assert list(islice(RetryPolicy(initial=1.0).delays(lambda: next(draws)), 3)) == [0, 1, 4]


@given(
    initial=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    cap=st.floats(0, 1e6),
    draws=st.lists(st.floats(0, 1), min_size=2, max_size=60),
)
def test_no_delay_is_above_the_cap_or_below_zero(
    initial: float, factor: float, cap: float, draws: list[float]
) -> None:
    source = iter(draws)
    policy = RetryPolicy(initial=initial, factor=factor, cap=cap)
    assert all(0 <= one <= cap for one in islice(policy.delays(source.__next__), len(draws)))
    ceilings = list(islice(policy.delays(most), len(draws)))
    assert all(one <= other for one, other in pairwise(ceilings))


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 1.5},
        {"quick_failures": 0},
        {"factor": 0.9},
        {"initial": -1},
        {"initial": True},
        {"cap": math.inf},
        {"cap": "1"},
        {"retry_after_cap": math.nan},
        {"initial": 10**400},
        {"stable_after": -0.1},
        {"classify": 1},
    ],
    ids=repr,
)
def test_a_wrong_value_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_a_retry_after_is_waited_for_up_to_its_cap() -> None:
    budget = RetryBudget(RetryPolicy(initial=1.0, factor=10.0, retry_after_cap=60.0), most)
    assert budget.failed(ConnectError(retryable=True, retry_after=2.0)) == 2.0
    assert budget.failed(ConnectError(retryable=True, retry_after=3600.0)) == 60.0
    assert budget.failed(ConnectError(retryable=True, retry_after=0.1)) == 20.0


def test_the_budget_ends_with_every_attempts_error() -> None:
    budget = RetryBudget(RetryPolicy(attempts=3), most)
    errors = [DialFailed(str(number)) for number in range(3)]
    budget.failed(errors[0])
    budget.failed(errors[1])
    with pytest.raises(RetriesExhausted) as caught:
        budget.failed(errors[2])
    assert caught.value.attempts == tuple(errors)
    assert caught.value.last is errors[2]
    assert [error.attempt for error in errors] == [1, 2, 3]


def test_without_a_limit_the_budget_never_ends_and_keeps_few_errors() -> None:
    budget = RetryBudget(RetryPolicy(attempts=None, quick_failures=1), most)
    for _ in range(5_000):
        budget.failed(DialFailed())
    with pytest.raises(RetriesExhausted) as caught:
        budget.lost(lost(), proven=False, stable=False)
    assert len(caught.value.attempts) == 100


def test_a_final_failure_is_raised_as_it_is() -> None:
    error = HandshakeRejected(status=401)
    with pytest.raises(HandshakeRejected) as caught:
        RetryBudget(RetryPolicy(), most).failed(error)
    assert caught.value is error


@pytest.mark.parametrize("proven", [True, False])
def test_a_final_loss_is_raised_even_of_a_proven_connection(proven: bool) -> None:
    with pytest.raises(ConnectionLost):
        RetryBudget(RetryPolicy(), most).lost(lost(1008), proven=proven, stable=False)


def test_proof_resets_the_budget() -> None:
    budget = RetryBudget(RetryPolicy(attempts=2), most)
    for _ in range(50):
        budget.failed(DialFailed())
        assert budget.spent == 1
        assert budget.lost(lost(), proven=True, stable=True) == 0.0
        assert budget.spent == 0


def test_an_open_connection_without_proof_resets_nothing() -> None:
    budget = RetryBudget(RetryPolicy(attempts=3, initial=1.0), most)
    assert budget.failed(DialFailed()) == 1.0
    assert budget.lost(lost(), proven=False, stable=False) == 2.0
    with pytest.raises(RetriesExhausted):
        budget.failed(DialFailed())


def test_connections_that_end_at_once_end_the_loop_even_between_other_failures() -> None:
    budget = RetryBudget(RetryPolicy(quick_failures=3), most)
    for _ in range(2):
        budget.lost(lost(), proven=False, stable=False)
        budget.failed(DialFailed())
    with pytest.raises(RetriesExhausted, match="3 connections in a row"):
        budget.lost(lost(), proven=False, stable=False)


def test_the_first_redial_after_a_proven_connection_is_at_once_and_the_next_is_not() -> None:
    budget = RetryBudget(RetryPolicy(initial=1.0), most)
    assert budget.lost(lost(), proven=True, stable=False) == 0.0
    assert budget.failed(DialFailed()) == 1.0


def test_a_peer_that_talks_and_hangs_up_is_not_dialled_ever_faster() -> None:
    budget = RetryBudget(RetryPolicy(initial=1.0, quick_failures=3), most)
    delays = [budget.lost(lost(), proven=True, stable=False) for _ in range(6)]
    assert delays == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0]
    assert budget.lost(lost(), proven=True, stable=True) == 0.0
    assert budget.lost(lost(), proven=True, stable=False) == 0.0
    assert budget.failed(DialFailed()) == 1.0
