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
from agent_conn._dial.translate import read_quota, read_retry_after, redact, rejected

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
    assert rejected(401, CIMultiDict(headers), b"", ()).date == date


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"7", b'"x"', b"{}", b"[" * 4000, b"\xff"]
)
def test_a_body_that_says_nothing_of_a_quota_gives_none(body: bytes) -> None:
    assert read_quota(CIMultiDict(), body) is None


def test_a_quotas_odd_fields_are_kept_as_text() -> None:
    quota = read_quota(CIMultiDict(), b'{"remaining_limit": 3.5, "hint": null, "category": ["a"]}')
    assert quota is not None
    assert (quota.remaining_limit, quota.hint, quota.category) == ("3.5", None, "['a']")


def test_a_status_without_a_name_is_told_by_its_number() -> None:
    assert str(rejected(599, CIMultiDict(), b"", ())) == "the gateway answered 599"


def test_only_a_429_has_a_quota() -> None:
    headers = CIMultiDict({"X-LiveKit-Inference-RPM-Used": "1"})
    assert rejected(503, headers, b"", ()).quota is None
    assert rejected(429, headers, b"", ()).quota is not None


def test_the_longest_secret_is_cut_out_first_and_short_words_are_left() -> None:
    assert redact(b"Bearer abcdefgh12 abcdefgh ok", ["abcdefgh", "abcdefgh12", "ok", ""]) == (
        b"Bearer [redacted] [redacted] ok"
    )


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
        HandshakeRejected("no", status=429, body=b"wait", retry_after=2.0, retryable=True),
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
