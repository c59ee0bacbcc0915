"""Asks the caller's callables for what is fresh at each dial: URL, token, headers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from yarl import URL

from agent_conn._options import DialOptions, check_headers, check_url, is_token
from agent_conn.errors import ConfigurationError, TokenUnavailable

T = TypeVar("T")


async def read_url(options: DialOptions) -> URL:
    """The URL to dial.

    Raises:
        TokenUnavailable: its callable raised, or gave what cannot be dialled.
    """
    if isinstance(options.url, URL):
        return options.url
    given = await _ask("url", options.url)
    return _usable("url", lambda: check_url(given))


async def read_token(options: DialOptions) -> str | None:
    """The bearer token.

    Raises:
        TokenUnavailable: its callable raised, or gave what cannot be a token.
    """
    if not callable(options.token):
        return options.token
    token = await _ask("token", options.token)
    if isinstance(token, str) and is_token(token):
        return token
    raise TokenUnavailable("the token callable must give a str valid in a header")


async def read_headers(options: DialOptions) -> dict[str, str]:
    """The caller's headers.

    Raises:
        TokenUnavailable: their callable raised, or gave what cannot be sent.
    """
    if not callable(options.headers):
        return options.headers
    given = await _ask("headers", options.headers)
    return _usable("headers", lambda: check_headers(given, options.reserved_names))


async def _ask(name: str, source: Callable[[], object | Awaitable[object]]) -> object:
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
