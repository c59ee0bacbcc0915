from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict

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
    StateError,
    TokenUnavailable,
)
from agent_conn._dial.translate import read_quota, read_reason, read_retry_after, rejected
from agent_conn._secrets import Secrets

pytestmark = pytest.mark.quick

DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT", "Date": DATE}, 30.0),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT"}, None),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30", "Date": DATE}, None),
        ({"Retry-After": "Sun, 99 Nov 99999999999 12:00:30 GMT", "Date": DATE}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_answers_own_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert read_retry_after(CIMultiDict(headers)) == seconds


@pytest.mark.parametrize(
    ("headers", "date"),
    [
        ({}, None),
        ({"Date": "yesterday"}, None),
        ({"Date": DATE}, datetime(2026, 11, 22, 12, 0, tzinfo=UTC)),
    ],
)
def test_a_rejection_tells_the_peers_clock(headers: dict[str, str], date: datetime | None) -> None:
    assert rejected(401, CIMultiDict(headers), b"", Secrets()).date == date


@pytest.mark.parametrize("body", ["", "no json", "[]", "7", '"x"', "{}", "[" * 4000, "\ufffd"])
def test_a_body_that_says_nothing_of_a_quota_gives_none(body: str) -> None:
    assert read_quota(CIMultiDict(), body) is None


def test_a_quotas_odd_fields_are_kept_as_text() -> None:
    quota = read_quota(CIMultiDict(), '{"remaining_limit": 3.5, "hint": null, "category": ["a"]}')
    assert quota is not None
    assert (quota.remaining_limit, quota.hint, quota.category) == ("3.5", None, "['a']")


def test_a_status_without_a_name_is_told_by_its_number() -> None:
    assert str(rejected(599, CIMultiDict(), b"", Secrets())) == "the gateway answered 599"


def test_only_a_429_has_a_quota() -> None:
    headers = CIMultiDict({"X-LiveKit-Inference-RPM-Used": "1"})
    assert rejected(503, headers, b"", Secrets()).quota is None
    assert rejected(429, headers, b"", Secrets()).quota is not None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("token expired\nask again", "token expired"),
        ('{"message": "token expired"}', "token expired"),
        ('{"error": {"message": "no such model", "type": "invalid"}}', "no such model"),
        ('{"error": "quota", "hint": "wait"}', "quota"),
        ('{"detail": "\\u001b[31mred"}', "[31mred"),
        ('{"message": 7, "id": "x"}', ""),
        ("<html><body>Bad Gateway</body></html>", ""),
        ("[" * 4000, ""),
        ("", ""),
        ("x" * 500, "x" * 200),
    ],
)
def test_a_refusals_reason_is_one_line_of_what_the_peer_says(body: str, reason: str) -> None:
    assert read_reason(body) == reason


def test_the_reason_stands_in_the_message() -> None:
    error = rejected(401, CIMultiDict(), b'{"message": "token expired"}', Secrets())
    assert str(error) == "the gateway answered 401 Unauthorized: token expired"
    assert error.body == '{"message": "token expired"}'


def test_an_answer_that_repeats_a_secret_is_withheld_whole() -> None:
    secrets = Secrets(lambda: ["swordfish-4711"])
    headers = CIMultiDict({"X-Echo": "a swordfish-47", "X-Request-Id": "r1", "Set-Cookie": "a=b"})
    error = rejected(429, headers, b'{"hint": "swordfish"}', secrets)
    assert str(error) == (
        "the gateway answered 429 Too Many Requests (its text is withheld, since it repeats a "
        "secret that was sent)"
    )
    assert (error.body, error.quota, error.headers) == ("", None, {"x-request-id": "r1"})


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigurationError, ValueError),
        (StateError, RuntimeError),
        (ConnectTimeout, TimeoutError),
    ],
)
def test_an_error_is_caught_as_the_builtin_that_it_is(
    error: type[AgentConnError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)
    assert issubclass(error, AgentConnError)


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeout("late", phase=Phase.TOKEN),
        DialFailed("down", retryable=False, attempt=3),
        HandshakeRejected(
            "no", status=429, body="wait", headers={"Date": DATE}, retry_after=2.0, retryable=True
        ),
        HandshakeInvalid("odd"),
        TokenUnavailable("none"),
        OpenHookFailed("raised"),
        AttributionUnavailable("low"),
        ConnectionLost("lost", code=1011, reason="closed by the peer"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_can_be_copied_and_sent_to_another_process(
    error: AgentConnError, duplicate: object
) -> None:
    assert callable(duplicate)
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert (str(twin), vars(twin)) == (str(error), vars(error))
