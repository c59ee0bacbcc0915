"""Whether an exception tells that a websocket dropped under the code that used it."""

from __future__ import annotations

import aiohttp

from agent_conn.errors import ConnectionLost


def is_drop(error: BaseException | None, *, closed: bool) -> bool:
    """Whether ``error`` is what using a dropped websocket raises. A group is, if all in it are.

    ``closed`` tells whether the websocket is: only then does a message of the wrong kind
    (``receive_str`` on a Close) tell of its end.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_drop(one, closed=closed) for one in error.exceptions)
    if isinstance(error, aiohttp.WSMessageTypeError):
        return closed
    return isinstance(error, ConnectionError | aiohttp.ClientError | ConnectionLost)
