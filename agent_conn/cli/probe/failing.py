"""Make plain findings of the error that a connection ended with."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

from agent_conn.cli.probe.findings import Failure, Outcome, Refusal, Step
from agent_conn.cli.probe.greeting import RefusedAfterUpgrade
from agent_conn.cli.probe.secrets import Secrets
from agent_conn.cli.probe.timing import StepTimes
from agent_conn.errors import ConnectError, ConnectTimeout, DialFailed, HandshakeRejected, Phase


def explain(
    error: ConnectError,
    times: StepTimes,
    *,
    ended: float,
    timeout: float,
    redirect: str | None,
    secrets: Secrets,
) -> Failure:
    """What `error` says, and in which step it came.

    `ended` is of the clock of `times`, `timeout` the seconds that the connection had,
    `redirect` where an answer redirected to.
    """
    step = _failed_step(error, times)
    tls_error = times.tls.error if times.tls is not None and step is Step.TLS else None
    return Failure(
        step=step,
        after=ended - times.began.get(step, ended),
        error=error,
        message=_message(error, timeout),
        refusal=_refusal(secrets, error),
        redirect=None if redirect is None else secrets.hide(redirect),
        errno=error.errno if isinstance(error, DialFailed) else None,
        tls_reason=tls_error.reason if tls_error is not None else None,
        verify_code=tls_error.verify_code
        if isinstance(tls_error, ssl.SSLCertVerificationError)
        else None,
    )


def outcome_of(failure: Failure | None) -> Outcome:
    """How a connection ended that ended with `failure`."""
    if failure is None:
        return Outcome.OPEN
    return Outcome.UNREACHABLE if failure.refusal is None else Outcome.REJECTED


def _failed_step(error: ConnectError, times: StepTimes) -> Step:
    if error.phase is Phase.ON_OPEN:
        return Step.FIRST_MESSAGE
    return Step.UPGRADE if error.phase is Phase.HANDSHAKE else times.under_way()


def _message(error: ConnectError, timeout: float) -> str:
    if isinstance(error, ConnectTimeout):
        return f"no answer, and the {timeout:g} s of --timeout are over"
    refused = error.__cause__
    if not isinstance(refused, RefusedAfterUpgrade):
        return str(error)
    if refused.code is None:
        return refused.what
    return f"{refused.what} with code {refused.code}"


def _refusal(secrets: Secrets, error: ConnectError) -> Refusal | None:
    if isinstance(error, HandshakeRejected):
        return Refusal(
            status=error.status,
            body=secrets.hide(error.body),
            quota=None if error.quota is None else secrets.hide_in_quota(error.quota),
            retry_after=error.retry_after,
            date=error.date,
            received_at=datetime.now(UTC),
        )
    refused = error.__cause__
    if isinstance(refused, RefusedAfterUpgrade) and not refused.cut:
        return Refusal(body=secrets.hide(refused.text), code=refused.code)
    return None
