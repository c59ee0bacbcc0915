"""The findings as one JSON object, for machines.

Times are in seconds and named so. Keys are never left out; what is not known is null.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent_conn.cli.probe.advice import advise
from agent_conn.cli.probe.findings import (
    Attempt,
    Failure,
    Findings,
    Outcome,
    Refusal,
    Spread,
    Step,
    Tls,
)

SCHEMA = 1
"""Raised when a name goes or changes its meaning; names may be added without."""
_DIGITS = 6


def as_json(findings: Findings, now: datetime) -> dict[str, Any]:
    """`findings` as an object for ``json.dumps``."""
    outcomes, spreads, tls = findings.outcomes(), findings.spreads(), findings.tls()
    refusals = (failure.refusal for failure, _ in findings.failures())
    refusal = next((found for found in refusals if found is not None), None)
    return {
        "schema": SCHEMA,
        "url": findings.target.shown_url,
        "own_gateway": findings.target.own_gateway,
        "credentials": findings.target.credentials,
        "attribution": findings.target.attribution,
        "exit_status": int(findings.status()),
        "interrupted": findings.interrupted,
        "requested": findings.requested,
        "made": len(findings.attempts),
        **{str(outcome): outcomes[outcome] for outcome in Outcome},
        "steps": {str(step): _spread(spreads.get(step)) for step in Step},
        "total": _spread(findings.total()),
        "tls": None if tls is None else _tls(tls, now),
        "rejection": None if refusal is None else _refusal(refusal),
        "advice": advise(findings, now),
        "connections": [_attempt(attempt) for attempt in findings.attempts],
    }


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {
        "median_seconds": _round(spread.median),
        "min_seconds": _round(spread.least),
        "max_seconds": _round(spread.most),
        "count": spread.count,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "outcome": str(attempt.outcome),
        **{f"{step}_seconds": _round(attempt.seconds.get(step)) for step in Step},
        "total_seconds": _round(attempt.total),
        "addresses": list(attempt.addresses),
        "first_message_type": attempt.first_message,
        "failure": None if attempt.failure is None else _failure(attempt.failure),
    }


def _failure(failure: Failure) -> dict[str, Any]:
    status = None if failure.refusal is None else failure.refusal.status
    return {
        "step": str(failure.step),
        "after_seconds": _round(failure.after),
        "error": type(failure.error).__name__,
        "message": failure.message,
        "redirect": failure.redirect,
        "status": status,
    }


def _tls(tls: Tls, now: datetime) -> dict[str, Any]:
    certificate = tls.certificate
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "verified": tls.verified,
        "verify_error": tls.refusal,
        "certificate": None
        if certificate is None
        else {
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "names": list(certificate.names),
            "not_before": _date(certificate.not_before),
            "not_after": _date(certificate.not_after),
            "days_left": certificate.days_left(now),
            "self_signed": certificate.self_signed,
        },
    }


def _refusal(refusal: Refusal) -> dict[str, Any]:
    quota = refusal.quota
    return {
        "status": refusal.status,
        "code": refusal.code,
        "body": refusal.body,
        "retry_after_seconds": refusal.retry_after,
        "quota": None
        if quota is None
        else {
            "hint": quota.hint,
            "quota_type": quota.quota_type,
            "category": quota.category,
            "remaining_limit": quota.remaining_limit,
            "documentation_url": quota.documentation_url,
            "limits": dict(quota.limits),
        },
    }


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, _DIGITS)


def _date(date: datetime | None) -> str | None:
    return None if date is None else date.isoformat()
