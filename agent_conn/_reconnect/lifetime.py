"""How long a connection lived, which is all that tells of its health."""

from __future__ import annotations

import asyncio

from agent_conn._connection import InferenceConnection
from agent_conn._reconnect.retry import LONG_LIFE


class Lifetime:
    """The life of one connection in use, from ``began_at`` of the event loop's clock on.

    It is looked at after ``LONG_LIFE``, since a body may look at its connection long after that
    has ended.
    """

    def __init__(self, connection: InferenceConnection, began_at: float) -> None:
        self._connection = connection
        self._began_at = began_at
        self._ended_early = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(began_at + LONG_LIFE, self._look)

    def end(self) -> float:
        """Look no more. Returns the seconds that it lived, 0 where it had ended early."""
        self._timer.cancel()
        if self._ended_early:
            return 0.0
        return asyncio.get_running_loop().time() - self._began_at

    def _look(self) -> None:
        self._ended_early = self._connection.is_closing()
