"""The findings for a person, in a terminal of any width or in none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Console
from rich.containers import Lines
from rich.text import Text

from agent_conn.cli.plain import as_text, plain
from agent_conn.cli.probe.advice import advise
from agent_conn.cli.probe.findings import Findings, Outcome, Refusal, Tls
from agent_conn.cli.probe.greeting import LISTEN_SECONDS
from agent_conn.cli.probe.waterfall import waterfall

_INDENT = 2
_GAP = 2
_MIN_VALUES = 20
_STYLES = {Outcome.OPEN: "green", Outcome.REJECTED: "red", Outcome.UNREACHABLE: "red"}

Fact = tuple[str, str]


def print_page(console: Console, findings: Findings, now: datetime) -> None:
    """Print everything that was found on `console`."""
    target = findings.target
    title = target.shown_url
    if target.own_gateway:
        title += ", a gateway of its own"
    elif target.url_source is not None:
        title += f", from {target.url_source}"
    console.print(as_text(title, "bold"), soft_wrap=True)
    blocks = [
        waterfall(findings, console.width - _INDENT, ascii_only=console.options.ascii_only),
        _fact_lines(console, list(_facts(findings, now))),
    ]
    for lines in filter(None, blocks):
        console.print()
        for line in lines:
            console.print(Text(" " * _INDENT).append_text(line), soft_wrap=True)
    console.print()
    console.print(_verdict(findings))
    for text in advise(findings, now):
        for line in _wrap(console, text, console.width):
            console.print(line, soft_wrap=True)


def _facts(findings: Findings, now: datetime) -> Iterator[Fact]:
    yield "token", findings.target.credentials or "none"
    yield "attribution", findings.target.attribution
    addresses = dict.fromkeys(a for attempt in findings.attempts for a in attempt.addresses)
    if addresses:
        yield "address", ", ".join(addresses)
    if (tls := findings.tls()) is not None:
        yield from _tls_facts(tls, now)
    elif not findings.target.secure and not findings.target.loopback:
        yield "TLS", "none: what is sent can be read on the way"
    if findings.outcomes()[Outcome.OPEN]:
        yield "first message", _first_message(findings)
    for failure, count in findings.failures():
        yield "failed", f"{_times(count)}in {failure.step.label}: {failure.message}"
        if failure.redirect is not None:
            yield "redirects to", failure.redirect
        if failure.refusal is not None:
            yield from _refusal_facts(failure.refusal)


def _tls_facts(tls: Tls, now: datetime) -> Iterator[Fact]:
    yield "TLS", ", ".join(filter(None, (tls.version, tls.cipher)))
    certificate = tls.certificate
    if certificate is not None:
        yield "certificate", certificate.subject or "without a subject"
        yield "issued by", "itself" if certificate.self_signed else certificate.issuer
        if certificate.names:
            yield "good for", ", ".join(certificate.names)
        if certificate.not_after is not None:
            left = f"{certificate.days_left(now)} days left"
            since = certificate.expired_since(now)
            told = f"expired {since}" if since is not None else left
            yield "valid until", f"{certificate.not_after:%Y-%m-%d %H:%M} UTC, {told}"
    if tls.verified is None:
        yield "verified", "not checked"
    else:
        yield "verified", "yes" if tls.verified else f"no: {tls.refusal}"


def _refusal_facts(refusal: Refusal) -> Iterator[Fact]:
    if refusal.code is not None:
        yield "code", str(refusal.code)
    if refusal.retry_after is not None:
        yield "retry after", f"{refusal.retry_after:g} s"
    if (quota := refusal.quota) is not None:
        for name in ("category", "quota_type", "remaining_limit", "hint", "documentation_url"):
            if (value := getattr(quota, name)) is not None:
                yield name.replace("_", " ").removeprefix("documentation "), value
        if quota.limits:
            yield (
                "limits",
                ", ".join(f"{name} {quota.limits[name]}" for name in sorted(quota.limits)),
            )
    if refusal.body:
        yield "it said", refusal.body


def _first_message(findings: Findings) -> str:
    kinds = [attempt.first_message for attempt in findings.attempts if attempt.first_message]
    if kinds:
        return ", ".join(dict.fromkeys(kinds))
    return f"none came within {LISTEN_SECONDS:g} s, and none was asked for"


def _fact_lines(console: Console, facts: Sequence[Fact]) -> list[Text]:
    """Names in one column, values beside them, wrapped there."""
    names = max(len(plain(name)) for name, _ in facts) + _GAP
    width = max(_MIN_VALUES, console.width - _INDENT - names)
    lines = []
    for name, value in facts:
        label = Text(plain(name).ljust(names), style="dim")
        for line in _wrap(console, value, width):
            lines.append(Text().append_text(label).append_text(line))
            label = Text(" " * names)
    return lines


def _wrap(console: Console, text: str, width: int) -> Lines:
    lines = as_text(text).wrap(console, width)
    for line in lines:
        line.rstrip()
    return lines


def _verdict(findings: Findings) -> Text:
    made, outcomes = len(findings.attempts), findings.outcomes()
    parts = [
        Text(
            f"{outcomes[outcome]} of {made} {outcome}" if made > 1 else outcome,
            style=f"bold {_STYLES[outcome]}",
        )
        for outcome in Outcome
        if outcomes[outcome]
    ]
    if findings.interrupted:
        parts.append(Text(f"interrupted after {made} of {findings.requested}", style="bold yellow"))
    elif made < findings.requested:
        parts.append(Text(f"ended early after {made} of {findings.requested}", style="yellow"))
    return Text(", ").join(parts)


def _times(count: int) -> str:
    return f"{count} times " if count > 1 else ""
