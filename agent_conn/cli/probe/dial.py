"""Open one connection as users do, and measure it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from yarl import URL

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AgentIdentity
from agent_conn.cli.probe.failing import explain, outcome_of
from agent_conn.cli.probe.findings import Attempt, Step, Tls
from agent_conn.cli.probe.greeting import Greeting, request_for
from agent_conn.cli.probe.resolver import UnhurriedResolver
from agent_conn.cli.probe.secrets import Secrets
from agent_conn.cli.probe.target import shown
from agent_conn.cli.probe.timing import StepTimes, format_peers
from agent_conn.cli.probe.tls import read_unverified
from agent_conn.errors import ConnectError


@dataclass(frozen=True, slots=True, repr=False)
class Dial:
    """What each connection of a probe is opened with; no repr shows it. ``timeout`` in seconds."""

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
    times, greeting = StepTimes(clock, dial.context), Greeting(request_for(dial.url))
    error: ConnectError | None = None
    redirects: list[str] = []
    async with _session(times, redirects) as session:
        connection = _connection(session, dial, greeting)
        began = clock()
        try:
            await connection.open()
        except ConnectError as raised:
            error = raised
        finally:
            ended = clock()
            await connection.aclose()
    times.answered(connection.record.upgraded)
    if greeting.received is not None:
        times.greeted(connection.record.opened)
    elif error is None:
        # The time in which nothing was said is no part of the opening.
        ended = times.ended[Step.UPGRADE]
    failure = None
    if error is not None:
        failure = explain(
            error,
            times,
            ended=ended,
            timeout=dial.timeout,
            redirect=redirects[-1] if redirects else None,
            secrets=dial.secrets,
        )
    return Attempt(
        outcome=outcome_of(failure),
        seconds=times.lengths(),
        total=ended - began,
        addresses=format_peers(times.peers),
        first_message=None if greeting.received is None else dial.secrets.hide(greeting.received),
        tls=await _tls(times, dial.url),
        failure=failure,
    )


def _session(times: StepTimes, redirects: list[str]) -> aiohttp.ClientSession:
    class Response(aiohttp.ClientResponse):
        """Notes where it redirects to, which the connection's error does not tell."""

        async def start(self, connection: Connection) -> aiohttp.ClientResponse:
            response = await super().start(connection)
            location = self.headers.get(hdrs.LOCATION)
            if 300 <= self.status < 400 and location:
                redirects.append(_target(self.url, location))
            return response

    return aiohttp.ClientSession(
        connector=_TimedConnector(times),
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=Response,
    )


def _target(url: URL, location: str) -> str:
    try:
        return shown(url.join(URL(location)))
    except ValueError:
        return "an invalid URL"


class _TimedConnector(aiohttp.TCPConnector):
    def __init__(self, times: StepTimes) -> None:
        super().__init__(
            resolver=UnhurriedResolver(began=times.resolving, ended=times.resolved),
            use_dns_cache=False,
            socket_factory=times.make_socket,
        )
        self.__times = times

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        self.__times.connected()
        return connection


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


async def _tls(times: StepTimes, url: URL) -> Tls | None:
    watch = times.tls
    if watch is None:
        return None
    if watch.agreed is not None or not isinstance(watch.error, ssl.SSLCertVerificationError):
        return watch.agreed
    host, port = times.peers[-1]
    return await read_unverified(host, port, url.host or host, watch.error.verify_message)
