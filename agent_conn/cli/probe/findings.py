"""What a probe saw, as plain records. Times are in seconds; no credential is in any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from statistics import median

from agent_conn.cli.status import Status
from agent_conn.errors import ConnectError, Quota


class Step(StrEnum):
    """The steps of opening a connection, in their order."""

    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    UPGRADE = "upgrade"
    FIRST_MESSAGE = "first_message"

    @property
    def label(self) -> str:
        """The step's name for a person."""
        return str(self).upper() if len(self) == 3 else str(self).replace("_", " ")


class Outcome(StrEnum):
    """What became of one connection."""

    OPEN = "open"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A peer's certificate. An empty text or None is what could not be read."""

    subject: str
    issuer: str
    names: Sequence[str] = ()
    """The DNS names and addresses that it is good for."""
    not_before: datetime | None = None
    not_after: datetime | None = None
    self_signed: bool = False

    def expired_since(self, now: datetime) -> str | None:
        """How long ago it expired, such as ``3 days ago``; None where it did not."""
        if self.not_after is None or self.not_after > now:
            return None
        since = now - self.not_after
        count, unit = (since.days, "day") if since.days else (since.seconds // 3600, "hour")
        if not count:
            return "less than an hour ago"
        return f"{count} {unit}{'' if count == 1 else 's'} ago"

    def days_left(self, now: datetime) -> int | None:
        """Whole days until it expires, negative once it has."""
        return None if self.not_after is None else (self.not_after - now).days


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS as it was agreed, and the certificate that the peer showed."""

    version: str | None
    cipher: str | None
    certificate: Certificate | None
    verified: bool | None
    """Whether the chain and the name were verified; None where nobody checked."""
    refusal: str | None = None
    """Why they were not, in OpenSSL's words."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How the peer refused: by an HTTP status, or after the upgrade."""

    status: int | None = None
    """The HTTP status."""
    body: str = ""
    """What it said: the first 2 KiB of the body, or the error message's text."""
    quota: Quota | None = None
    retry_after: float | None = None
    date: datetime | None = None
    """The peer's clock."""
    received_at: datetime | None = None
    """This machine's clock at that moment."""
    code: int | None = None
    """The close code, or that of the error message."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection did not open, and in which step."""

    step: Step
    after: float
    """How long that step had lasted."""
    error: ConnectError
    message: str
    """What happened, for a person; no credential is in it."""
    refusal: Refusal | None = None
    redirect: str | None = None
    """Where the answer redirects to, without its query."""
    errno: int | None = None
    """The system's number, where TCP failed."""
    tls_reason: str | None = None
    """OpenSSL's reason, such as ``WRONG_VERSION_NUMBER``."""
    verify_code: int | None = None
    """OpenSSL's number for why the certificate was refused."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection."""

    outcome: Outcome
    seconds: Mapping[Step, float]
    """The length of each step that came to its end."""
    total: float
    """From the call until it was open with its first message, or had failed."""
    addresses: Sequence[str] = ()
    """The addresses that TCP was tried with, in that order."""
    first_message: str | None = None
    """The type of the first message; None where none came."""
    tls: Tls | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """One step over all connections that completed it."""

    median: float
    least: float
    most: float
    count: int


def spread_of(lengths: Iterable[float | None]) -> Spread | None:
    """The spread of those lengths that are known, or None where none is."""
    known = [length for length in lengths if length is not None]
    return Spread(median(known), min(known), max(known), len(known)) if known else None


@dataclass(frozen=True, slots=True)
class Target:
    """What is probed, and how. No query, user or password is in ``shown_url``."""

    shown_url: str
    url_source: str | None
    """The variable that the URL came from; None where it was given."""
    own_gateway: bool
    """Whether it is one that the probe started."""
    credentials: str | None
    """Where the token came from; None where none is sent."""
    mints: bool
    """Whether it was minted here."""
    attribution: str
    secure: bool
    """Whether it is dialled with TLS."""
    loopback: bool
    """Whether it is on this machine."""


@dataclass(slots=True)
class Findings:
    """Everything that a probe saw."""

    target: Target
    requested: int
    attempts: list[Attempt] = field(default_factory=list)
    interrupted: bool = False

    def spreads(self) -> dict[Step, Spread]:
        """The spread of each step that any connection completed, in the steps' order."""
        found = {step: spread_of([a.seconds.get(step) for a in self.attempts]) for step in Step}
        return {step: spread for step, spread in found.items() if spread is not None}

    def total(self) -> Spread | None:
        """The spread of the whole, over the connections that opened."""
        return spread_of([a.total for a in self.attempts if a.outcome is Outcome.OPEN])

    def outcomes(self) -> Counter[Outcome]:
        """How many connections ended in each way."""
        return Counter(attempt.outcome for attempt in self.attempts)

    def failures(self) -> list[tuple[Failure, int]]:
        """The failures that differ in more than their length, and how often each was met."""
        kinds: dict[tuple[Step, str], list[Failure]] = {}
        for attempt in self.attempts:
            if attempt.failure is not None:
                kind = attempt.failure.step, attempt.failure.message
                kinds.setdefault(kind, []).append(attempt.failure)
        return [(same[0], len(same)) for same in kinds.values()]

    def tls(self) -> Tls | None:
        """The last connection's TLS, or that of the last one that came so far."""
        return next((a.tls for a in reversed(self.attempts) if a.tls is not None), None)

    def status(self) -> Status:
        """The exit status: the worst of what was met."""
        if self.interrupted:
            return Status.INTERRUPTED
        outcomes = self.outcomes()
        if outcomes[Outcome.UNREACHABLE]:
            return Status.UNREACHABLE
        return Status.REJECTED if outcomes[Outcome.REJECTED] else Status.OK
