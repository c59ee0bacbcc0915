"""What to do about what a probe saw. Pure: text from findings, in one or two sentences."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from datetime import datetime

from agent_conn.cli.probe.findings import (
    Attempt,
    Failure,
    Findings,
    Outcome,
    Refusal,
    Step,
    Target,
    Tls,
)
from agent_conn.errors import ConnectTimeout, HandshakeInvalid, Quota

EXPIRES_SOON_DAYS = 14
CLOCK_SKEW_SECONDS = 30.0
"""More than a round trip and a Date header's whole seconds explain."""

# OpenSSL's X509_V_ERR_* numbers (x509_vfy.h).
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_UNTRUSTED_ISSUER = (2, 19, 20, 21, 27)
_WRONG_NAME = (62, 64)

_NO_TLS_REASONS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_STALLED = {
    Step.DNS: "The name server does not answer: check this machine's DNS settings and network.",
    Step.TCP: "Packets to {peer} are dropped: check the port, the route and firewalls.",
    Step.TLS: (
        "{peer} accepts TCP and says nothing in TLS. A firewall or proxy may hold the connection, "
        "or the port may serve something else: check the port, and ws:// or wss://."
    ),
    Step.UPGRADE: (
        "{peer} accepts the connection and never answers the request. The gateway may hang, a "
        "proxy may block websockets, or the port may not serve HTTP: check the port and the "
        "gateway's log."
    ),
    Step.FIRST_MESSAGE: (
        "The websocket opened, and no session.created came: check that the path is the "
        "gateway's /stt or /tts, and the gateway's log."
    ),
}
_CUT = {
    Step.TLS: (
        "{peer} ended the connection in TLS: the port may not serve TLS, or a firewall may cut it."
    ),
    Step.UPGRADE: (
        "{peer} hung up on the request. A wss:// server hangs up on ws://, and some proxies and "
        "load balancers on websockets: check the scheme, the port and what stands in between."
    ),
    Step.FIRST_MESSAGE: (
        "The websocket opened and was cut without a Close frame: look into the gateway's log, "
        "and at proxies with a time limit."
    ),
}
_STATUSES = {
    400: "The gateway finds the request wrong: check the URL's path and query.",
    403: "The credentials are valid but not allowed to do this: check the key's inference grant.",
    404: "There is no such path: the gateway's services are below /v1, as /v1/stt and /v1/tts.",
    407: "A proxy on the way asks for its own credentials.",
    408: "The gateway gave up waiting for the request: try again, and check the line.",
    426: "The path wants another upgrade: something on the way may have removed the websocket's.",
}


def advise(findings: Findings, now: datetime) -> list[str]:
    """Return what to do, one text for each problem."""
    texts = [
        advise_on_failure(attempt.failure, attempt, findings.target, now)
        for attempt in findings.attempts
        if attempt.failure is not None
    ]
    tls = findings.tls()
    if tls is not None and findings.outcomes()[Outcome.OPEN]:
        texts += _on_open_tls(tls, now)
    return list(dict.fromkeys(texts))


def advise_on_failure(failure: Failure, attempt: Attempt, target: Target, now: datetime) -> str:
    """What to do about one connection that did not open."""
    peer = " and ".join(attempt.addresses) or target.shown_url
    if failure.refusal is not None:
        return _on_refusal(failure.refusal, target)
    if failure.verify_code is not None:
        return _on_certificate(failure.verify_code, attempt.tls, now)
    if isinstance(failure.error, ConnectTimeout):
        return _STALLED[failure.step].format(peer=peer)
    return _on_break(failure, peer)


def _on_break(failure: Failure, peer: str) -> str:
    if failure.redirect is not None:
        return f"It redirects to {failure.redirect}: pass that URL, if you trust it."
    if isinstance(failure.error, HandshakeInvalid):
        return "The server that answers does not serve a websocket here: check host, port and path."
    if failure.step is Step.DNS:
        return "The host's name has no address: check its spelling, and this machine's DNS."
    if failure.step is Step.TCP:
        return _on_tcp(failure.errno, peer)
    if failure.tls_reason in _NO_TLS_REASONS:
        return f"{peer} does not speak TLS: try ws:// or http://, or check the port."
    return _CUT[failure.step].format(peer=peer)


def _on_tcp(number: int | None, peer: str) -> str:
    if number == errno.ECONNREFUSED:
        return f"Nothing listens on {peer}: start it, or check the port."
    if number in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"There is no route to {peer}: check the network, VPN and firewalls."
    return f"TCP to {peer} failed: check the address, the port and firewalls."


def _on_certificate(code: int, tls: Tls | None, now: datetime) -> str:
    certificate = tls.certificate if tls is not None else None
    if code == _EXPIRED:
        since = certificate.expired_since(now) if certificate is not None else None
        when = f" {since}" if since is not None else ""
        return f"The certificate expired{when}: renew it, or check this machine's clock."
    if code == _NOT_YET_VALID:
        return "The certificate is not valid yet: check this machine's clock."
    if code in _WRONG_NAME:
        names = ", ".join(certificate.names) if certificate is not None else ""
        good_for = f" It is good for {names}." if names else ""
        return f"The certificate is not for this host: check the URL's host.{good_for}"
    if code == _SELF_SIGNED:
        return "The certificate is self-signed: pass it with --ca FILE, if it is the right one."
    if code in _UNTRUSTED_ISSUER:
        return (
            "The certificate's issuer is not trusted here: pass its CA with --ca FILE. "
            "On the way to a public gateway, a proxy may be reading the traffic."
        )
    return "The certificate was refused: renew it, or pass its CA with --ca FILE."


def _on_refusal(refusal: Refusal, target: Target) -> str:
    if refusal.status is None:
        return _on_refusal_after_upgrade(refusal)
    if refusal.status == 401:
        return _on_unauthorized(refusal, target)
    if refusal.status == 429:
        return " ".join(_on_quota(refusal.quota, refusal.retry_after))
    if refusal.status in _STATUSES:
        return _STATUSES[refusal.status]
    if refusal.status >= 500:
        again = "later" if refusal.retry_after is None else f"in {refusal.retry_after:g} s"
        return f"The gateway, or what stands before it, is failing: try again {again}."
    return "The gateway refuses the request: see what it says."


def _on_refusal_after_upgrade(refusal: Refusal) -> str:
    if refusal.code == 1000:
        return "The gateway closed the websocket before it said anything: check the path."
    return "The gateway opened the websocket and then refused: see its code, message and log."


def _on_unauthorized(refusal: Refusal, target: Target) -> str:
    if target.credentials is None:
        return (
            "The gateway wants a token: pass --api-key and --api-secret, or set them in the "
            "environment."
        )
    if not target.mints:
        return (
            f"The gateway does not take the token of {target.credentials}: check that it has not "
            "expired, and that it was made with a key of this gateway."
        )
    skew = clock_skew(refusal)
    if abs(skew) > CLOCK_SKEW_SECONDS:
        side = "ahead of" if skew > 0 else "behind"
        return (
            f"This machine's clock is {abs(skew):.0f} s {side} the gateway's, so that its tokens "
            "are not valid there: set it. If that does not help, check the key and secret."
        )
    return (
        f"The gateway does not take a token minted with {target.credentials}: check that the two "
        "belong together, and to this gateway."
    )


def clock_skew(refusal: Refusal) -> float:
    """How many seconds this machine's clock is ahead of the peer's; 0 where it is not known."""
    if refusal.date is None or refusal.received_at is None:
        return 0.0
    return (refusal.received_at - refusal.date).total_seconds()


def _on_quota(quota: Quota | None, retry_after: float | None) -> Iterator[str]:
    if quota is None:
        yield "The gateway has too many requests."
    else:
        named = " ".join(filter(None, (quota.category, quota.quota_type)))
        limits = ", ".join(f"{name} {value}" for name, value in sorted(quota.limits.items()))
        told = f": {limits}" if limits else ""
        yield f"The {named + ' ' if named else ''}quota is used up{told}."
    if retry_after is not None:
        yield f"Try again in {retry_after:g} s."
    if quota is None or quota.documentation_url is None:
        yield "Ask for fewer connections, or for a larger quota."
    else:
        yield f"To raise it: {quota.documentation_url}"


def _on_open_tls(tls: Tls, now: datetime) -> Iterator[str]:
    if tls.verified is None:
        yield (
            "The certificate was not checked (--insecure), so anyone on the way could have "
            "answered and read the token."
        )
    days = tls.certificate.days_left(now) if tls.certificate is not None else None
    if days is not None and days < EXPIRES_SOON_DAYS and tls.verified:
        yield f"The certificate expires in {days} days: renew it."
