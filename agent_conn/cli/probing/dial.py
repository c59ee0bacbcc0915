"""Open one connection as users do, and measure it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from yarl import URL

from agent_conn.cli.probing.findings import Attempt, Failure, Outcome, Refusal, Step, Tls
from agent_conn.cli.probing.greeting import Greeting, RefusedAfterUpgrade, request_for
from agent_conn.cli.probing.marks import Marks, format_peers
from agent_conn.cli.probing.resolver import UnhurriedResolver
from agent_conn.cli.probing.secrets import Secrets
from agent_conn.cli.probing.tls import read_unverified
from agent_conn.connection import InferenceConnection
from agent_conn.errors import ConnectError, DialFailed, HandshakeRejected, Phase
from agent_conn.identity import AgentIdentity

NO_CLOSE_FRAME = frozenset({None, 1006})


@dataclass(frozen=True, slots=True)
class Dial:
    """What each connection of a probe is opened with. ``timeout`` is in seconds."""

    url: URL
    token: Callable[[], str] | None
    identity: AgentIdentity
    timeout: float
    context: ssl.SSLContext | None
    insecure: bool
    secrets: Secrets


async def attempt(dial: Dial) -> Attempt:
    """Open a connection of its own to the end of its first message, and close it.

    Raises:
        ConfigurationError: `dial` is wrong, nothing was sent.
    """
    clock = asyncio.get_running_loop().time
    marks = Marks(clock, dial.context)
    greeting = Greeting(request_for(dial.url))
    connector = aiohttp.TCPConnector(
        resolver=UnhurriedResolver(), use_dns_cache=False, socket_factory=marks.make_socket
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[marks.trace_config()],
    ) as session:
        connection = _connection(session, dial, greeting)
        began, failure = clock(), None
        try:
            await connection.open()
        except ConnectError as error:
            failure = error
        finally:
            ended = clock()
            await connection.aclose()
    return await _attempt(dial, connection, marks, greeting, failure, began, ended)


def _connection(
    session: aiohttp.ClientSession, dial: Dial, greeting: Greeting
) -> InferenceConnection:
    return InferenceConnection(
        session,
        dial.url,
        identity=dial.identity,
        token=dial.token,
        on_open=greeting,
        open_timeout=dial.timeout,
        ssl=True if dial.context is None else dial.context,
        allow_insecure=dial.insecure,
    )


async def _attempt(
    dial: Dial,
    connection: InferenceConnection,
    marks: Marks,
    greeting: Greeting,
    error: ConnectError | None,
    began: float,
    ended: float,
) -> Attempt:
    seconds = marks.lengths()
    record = connection.record
    answered = None
    if record.upgraded is not None:
        seconds[Step.UPGRADE] = record.upgraded
        answered = marks.began[Step.UPGRADE] + record.upgraded
    if record.opened is not None and greeting.received is not None:
        seconds[Step.FIRST_MESSAGE] = record.opened
    failure = None
    if error is not None:
        step = _failed_step(error, marks)
        since = answered if step is Step.FIRST_MESSAGE else marks.began.get(step)
        after = ended - (began if since is None else since)
        failure = _failure(dial.secrets, error, step, after, marks)
    return Attempt(
        outcome=_outcome(failure),
        seconds=seconds,
        total=ended - began,
        addresses=format_peers(marks.peers),
        first_message=None if greeting.received is None else dial.secrets.hide(greeting.received),
        tls=await _tls(dial, marks),
        failure=failure,
    )


def _failed_step(error: ConnectError, marks: Marks) -> Step:
    if error.phase is Phase.ON_OPEN:
        return Step.FIRST_MESSAGE
    return Step.UPGRADE if error.phase is Phase.HANDSHAKE else marks.under_way()


def _failure(
    secrets: Secrets, error: ConnectError, step: Step, after: float, marks: Marks
) -> Failure:
    tls_error = marks.tls.error if marks.tls else None
    return Failure(
        step=step,
        after=after,
        error=error,
        refusal=_refusal(secrets, error),
        errno=error.errno if isinstance(error, DialFailed) else None,
        tls_reason=tls_error.reason if tls_error is not None else None,
        verify_code=marks.tls.verify_code if marks.tls else None,
    )


def _refusal(secrets: Secrets, error: ConnectError) -> Refusal | None:
    if isinstance(error, HandshakeRejected):
        return Refusal(
            status=error.status,
            body=secrets.hide(error.body.decode("utf-8", "replace")),
            quota=None if error.quota is None else secrets.hide_in_quota(error.quota),
            retry_after=error.retry_after,
            date=error.date,
            received_at=datetime.now(UTC),
        )
    refused = error.__cause__
    if isinstance(refused, RefusedAfterUpgrade) and not (
        refused.closed and refused.code in NO_CLOSE_FRAME
    ):
        return Refusal(body=secrets.hide(refused.text), code=refused.code)
    return None


def _outcome(failure: Failure | None) -> Outcome:
    if failure is None:
        return Outcome.OPEN
    return Outcome.UNREACHABLE if failure.refusal is None else Outcome.REJECTED


async def _tls(dial: Dial, marks: Marks) -> Tls | None:
    if marks.tls is None:
        return None
    if isinstance(marks.tls.error, ssl.SSLCertVerificationError) and marks.peers:
        host, port = marks.peers[-1]
        reason = marks.tls.error.verify_message
        return await read_unverified(host, port, dial.url.host or host, reason)
    return marks.tls.agreed
