"""What the probe advises, from findings alone."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_conn import ConnectTimeout, DialFailed, HandshakeInvalid, HandshakeRejected
from agent_conn.cli.probe.advice import advise, clock_skew
from agent_conn.cli.probe.findings import (
    Attempt,
    Certificate,
    Failure,
    Findings,
    Outcome,
    Refusal,
    Step,
    Target,
    Tls,
)
from agent_conn.errors import Quota

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CERTIFICATE = Certificate("CN=a", "CN=b", ("a.example",), NOW, datetime(2026, 11, 1, tzinfo=UTC))


def target(**changes: Any) -> Target:
    values: dict[str, Any] = {
        "shown_url": "wss://gateway.example/v1/stt",
        "url_source": None,
        "own_gateway": False,
        "credentials": "--api-key, --api-secret",
        "mints": True,
        "attribution": "NONE",
        "secure": True,
        "loopback": False,
    }
    return Target(**(values | changes))


def advice_on(step: Step, *, tls: Tls | None = None, **failure: Any) -> str:
    failure.setdefault("error", DialFailed())
    found = Failure(step=step, after=1.0, message="", **failure)
    attempt = Attempt(
        Outcome.UNREACHABLE, {}, 1.0, addresses=("192.0.2.1:443",), tls=tls, failure=found
    )
    (text,) = advise(Findings(target(), 1, [attempt]), NOW)
    return text


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ECONNREFUSED, "Nothing listens on 192.0.2.1:443"),
        (errno.EHOSTUNREACH, "no route to 192.0.2.1:443"),
        (errno.ENETUNREACH, "no route to 192.0.2.1:443"),
        (errno.ECONNRESET, "TCP to 192.0.2.1:443 failed"),
        (None, "TCP to 192.0.2.1:443 failed"),
    ],
)
def test_a_tcp_failure_is_told_by_its_number(number: int | None, expected: str) -> None:
    assert expected in advice_on(Step.TCP, errno=number)


@pytest.mark.parametrize(
    ("ago", "told"),
    [
        (timedelta(days=3, hours=20), "3 days ago"),
        (timedelta(days=1), "1 day ago"),
        (timedelta(hours=5), "5 hours ago"),
        (timedelta(minutes=59), "less than an hour ago"),
        (timedelta(0), "less than an hour ago"),
        (-timedelta(seconds=1), None),
    ],
)
def test_what_has_expired_is_told_by_how_long_ago(ago: timedelta, told: str | None) -> None:
    assert Certificate("CN=a", "CN=b", not_after=NOW - ago).expired_since(NOW) == told


def test_a_redirect_is_told_with_its_target() -> None:
    text = advice_on(Step.UPGRADE, error=HandshakeInvalid(), redirect="https://b.example/v1/stt")
    assert "redirects to https://b.example/v1/stt: pass that URL" in text


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (9, "not valid yet"),
        (10, "The certificate expired 21 days ago: renew it"),
        (18, "self-signed: pass it with --ca"),
        (19, "issuer is not trusted"),
        (20, "issuer is not trusted"),
        (62, "not for this host: check the URL's host. It is good for a.example."),
        (64, "not for this host"),
        (23, "was refused"),
    ],
)
def test_a_refused_certificate_is_told_by_openssls_number(code: int, expected: str) -> None:
    tls = Tls("TLSv1.3", "x", CERTIFICATE, verified=False, refusal="no")
    assert expected in advice_on(Step.TLS, verify_code=code, tls=tls)


@pytest.mark.parametrize("code", [10, 62])
def test_a_refused_certificate_that_could_not_be_read_has_advice_too(code: int) -> None:
    assert "The certificate" in advice_on(Step.TLS, verify_code=code)


@pytest.mark.parametrize("step", Step)
def test_every_step_can_stall_and_break(step: Step) -> None:
    assert advice_on(step, error=ConnectTimeout()).endswith(".")
    assert advice_on(step).endswith(".")


@pytest.mark.parametrize("status", [400, 402, 403, 404, 407, 408, 426, 429, 500, 503])
def test_every_refusal_has_advice(status: int) -> None:
    refusal = Refusal(status=status, retry_after=7.0)
    text = advice_on(Step.UPGRADE, error=HandshakeRejected(), refusal=refusal)
    assert text.endswith(".")
    assert ("7 s" in text) is (status in (429, 500, 503))


def test_a_quota_is_named_with_its_limits_and_where_to_raise_it() -> None:
    quota = Quota(category="stt", quota_type="rpm", limits={"RPM-Limit": "60"})
    refusal = Refusal(status=429, quota=quota)
    text = advice_on(Step.UPGRADE, refusal=refusal)
    assert text.startswith("The stt rpm quota is used up: RPM-Limit 60.")


@pytest.mark.parametrize("code", [1000, 1011])
def test_a_close_before_the_first_message_has_advice(code: int) -> None:
    text = advice_on(Step.FIRST_MESSAGE, refusal=Refusal(code=code))
    assert ("check the path" in text) is (code == 1000)


@pytest.mark.parametrize(("ahead", "side"), [(300, "ahead of"), (-300, "behind")])
def test_a_clock_that_is_off_is_told_with_its_side(ahead: int, side: str) -> None:
    refusal = Refusal(status=401, date=NOW - timedelta(seconds=ahead), received_at=NOW)
    assert f"300 s {side} the gateway's" in advice_on(Step.UPGRADE, refusal=refusal)


def test_a_clock_is_not_blamed_without_a_date() -> None:
    assert clock_skew(Refusal(status=401, received_at=NOW)) == 0.0


@pytest.mark.parametrize(("days", "told"), [(3, True), (90, False)])
def test_a_certificate_that_expires_soon_is_told_of(days: int, told: bool) -> None:
    soon = NOW + timedelta(days=days)
    tls = Tls("TLSv1.3", "x", Certificate("CN=a", "CN=b", (), NOW, soon), verified=True)
    texts = advise(Findings(target(), 1, [Attempt(Outcome.OPEN, {}, 1.0, tls=tls)]), NOW)
    assert texts == ([f"The certificate expires in {days} days: renew it."] if told else [])


def test_the_same_advice_is_given_once() -> None:
    failure = Failure(Step.DNS, 1.0, DialFailed(), "")
    attempt = Attempt(Outcome.UNREACHABLE, {}, 1.0, failure=failure)
    assert len(advise(Findings(target(), 2, [attempt, attempt]), NOW)) == 1
