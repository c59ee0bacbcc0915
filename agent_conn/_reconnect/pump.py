"""A caller's pump: how it is called, and how it met the end of its connection."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent_conn._connection import InferenceConnection
from agent_conn._options import kind
from agent_conn.errors import ConfigurationError, ConnectionLost

T = TypeVar("T")
Pump = Callable[[InferenceConnection], Awaitable[T]]
"""Does a caller's work on one open connection; see ``Reconnector.run``."""


async def call(pump: Pump[T], connection: InferenceConnection) -> T:
    """What ``pump`` returns.

    Raises:
        ConfigurationError: it is not async.
    """
    work: object = pump(connection)
    if not inspect.isawaitable(work):
        raise ConfigurationError(f"pump must be async, got a function that returned {kind(work)}")
    result: T = await work
    return result


def as_loss(error: Exception) -> ConnectionLost:
    """What a pump raised at a drop, as the loss that it tells of."""
    _forget_frames(error)
    if isinstance(error, ConnectionLost):
        return error
    reason = f"the pump met {type(error).__name__}"
    loss = ConnectionLost(f"connection lost: {reason}", reason=reason)
    loss.__cause__ = error
    return loss


def _forget_frames(error: BaseException) -> None:
    # A loop keeps its last errors, and frames would keep all that their locals hold.
    error.__traceback__ = None
    for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _forget_frames(one)
