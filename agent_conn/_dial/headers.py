"""What one request carries: credentials, ids and a trace, each as fresh as can be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from yarl import URL

from agent_conn._identity import AttributionLevel, IdentitySource, read_identity
from agent_conn._options import DialOptions, check_headers, check_url, is_token
from agent_conn._record import RecordBuilder, TraceHeaders, read_trace_headers
from agent_conn.errors import AttributionUnavailable, ConfigurationError, TokenUnavailable

T = TypeVar("T")


class RequestHeaders:
    """The headers of one dial's request.

    Args:
        options: has the token and the caller's own headers, or what gives them.
        identity: the ids, or what gives them; asked at each ``read``.
        require: the lowest level that may go out.
        trace_headers: gives the headers of a trace, or None.
        record: gets the identity that was read.
    """

    def __init__(
        self,
        options: DialOptions,
        identity: IdentitySource | None,
        require: AttributionLevel,
        trace_headers: TraceHeaders | None,
        record: RecordBuilder,
    ) -> None:
        self._options = options
        self._identity = identity
        self._require = require
        self._trace_headers = trace_headers
        self._record = record
        self._given: dict[str, str] = {}

    async def prepare(self) -> None:
        """Ask for the token and the caller's headers, once a dial.

        Raises:
            TokenUnavailable: a callable raised, or gave what cannot be used.
        """
        options = self._options
        token = await read_token(options.token) if callable(options.token) else options.token
        self._given = (
            await read_headers(options.headers, options.reserved_names)
            if callable(options.headers)
            else options.headers
        )
        if token is not None:
            self._given = {**self._given, "Authorization": f"Bearer {token}"}

    def forget(self) -> None:
        """Let go of what ``prepare`` got, which is a secret and has been sent."""
        self._given = {}

    def read(self) -> dict[str, str]:
        """What ``prepare`` got, and the ids that are known now.

        Raises:
            AttributionUnavailable: the ids give less than is required.
        """
        record, names = self._record, self._options.header_names
        identity = record.identity = read_identity(self._identity)
        if identity.level < self._require:
            raise AttributionUnavailable(
                f"attribution must be at least {self._require.name}, got {identity.level.name}",
                retryable=True,
            )
        headers = self._given | identity.headers(names)
        if names.session_id is not None:
            headers[names.session_id] = record.session_id
        return headers

    def read_with_trace(self) -> dict[str, str]:
        """The same, and the headers of the trace, right before the request."""
        headers = self.read()
        if self._trace_headers is not None:
            taken = {*headers, *self._options.reserved_names, "Authorization"}
            headers |= read_trace_headers(self._trace_headers, self._record.build(), taken)
        return headers


async def read_url(source: Callable[[], object]) -> URL:
    """The URL to dial.

    Raises:
        TokenUnavailable: ``source`` raised, or gave what cannot be dialled.
    """
    given = await _ask("url", source)
    return _usable("url", lambda: check_url(given))


async def read_token(source: Callable[[], object]) -> str:
    """The bearer token.

    Raises:
        TokenUnavailable: ``source`` raised, or gave what cannot be a token.
    """
    token = await _ask("token", source)
    if isinstance(token, str) and is_token(token):
        return token
    raise TokenUnavailable("the token callable must give a str valid in a header")


async def read_headers(source: Callable[[], object], reserved: Iterable[str]) -> dict[str, str]:
    """The caller's headers, which must not have ``reserved`` names.

    Raises:
        TokenUnavailable: ``source`` raised, or gave what cannot be sent.
    """
    given = await _ask("headers", source)
    return _usable("headers", lambda: check_headers(given, reserved))


async def _ask(name: str, source: Callable[[], object]) -> object:
    try:
        given = source()
        return await given if inspect.isawaitable(given) else given
    except Exception as error:
        failure = TokenUnavailable(
            f"the {name} callable raised {type(error).__name__}",
            retryable=not isinstance(error, ConfigurationError),
        )
    # Raised here and not above: its context would be an exception that may hold the secret.
    raise failure


def _usable(name: str, check: Callable[[], T]) -> T:
    try:
        return check()
    except ConfigurationError:
        # Its text may have the name of a header, and what a callable gave is a secret.
        failure = TokenUnavailable(f"the {name} callable gave {name} that cannot be used")
    raise failure
