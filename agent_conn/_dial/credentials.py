"""Asks the caller's callables for what is fresh at each dial: URL, token, headers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from yarl import URL

from agent_conn._options import check_headers, check_url, is_token
from agent_conn.errors import ConfigurationError, TokenUnavailable

T = TypeVar("T")


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
