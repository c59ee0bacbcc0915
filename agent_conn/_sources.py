"""What a connection asks its caller for at open time: who it is, and a token."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from agent_conn._identity import AgentIdentity, is_printable_ascii
from agent_conn.errors import ConfigurationError, TokenUnavailable

MAX_TOKEN = 8000
"""Characters of a token; with its header's name it must pass servers' 8 KiB for a header."""

IdentitySource = AgentIdentity | Callable[[], AgentIdentity]
TokenCallable = Callable[[], str | Awaitable[str]]
TokenSource = str | TokenCallable


def read_identity(source: IdentitySource | None) -> AgentIdentity:
    """The identity that is known now. Never raises: an id is not worth a call."""
    if source is None:
        return AgentIdentity()
    if isinstance(source, AgentIdentity):
        return source
    try:
        identity: object = source()
    except Exception as error:
        return AgentIdentity.unavailable(f"identity raised {type(error).__name__}")
    if isinstance(identity, AgentIdentity):
        return identity
    return AgentIdentity.unavailable(f"identity gave {type(identity).__name__}")


async def mint(source: TokenCallable) -> str:
    """A fresh token.

    Raises:
        TokenUnavailable: ``source`` raised, or gave what cannot be a token.
    """
    try:
        token = source()
        if inspect.isawaitable(token):
            token = await token
    except Exception as error:
        failure = TokenUnavailable(
            f"the token callable raised {type(error).__name__}",
            retryable=not isinstance(error, ConfigurationError),
        )
    else:
        if is_token(token):
            return token
        failure = TokenUnavailable("the token callable gave what cannot be a bearer token")
    # Raised here and not above: its context would be an exception that may hold the secret.
    raise failure


def is_token(value: object) -> bool:
    """Whether ``value`` can stand behind ``Bearer``: printable ASCII without spaces."""
    if not isinstance(value, str) or not value or len(value) > MAX_TOKEN:
        return False
    return is_printable_ascii(value) and " " not in value
