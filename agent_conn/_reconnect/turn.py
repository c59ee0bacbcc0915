"""One connection's turn in a loop: whose it is, and whether it proved itself."""

from __future__ import annotations

import asyncio

from agent_conn._connection import InferenceConnection
from agent_conn._lifecycle import ConnectionState
from agent_conn._reconnect.witness import Witness


class Turn:
    """A connection that was handed out, from then until the next is asked for."""

    def __init__(
        self, connection: InferenceConnection, witness: Witness, stable_after: float
    ) -> None:
        self.connection = connection
        self.stable: bool = False
        """Whether it was still open ``stable_after`` seconds after it was handed out."""
        self._witness = witness
        self._timer = asyncio.get_running_loop().call_later(stable_after, self._look)

    @property
    def proven(self) -> bool:
        """Whether a message was received, or it was stable."""
        return self.stable or self._witness.heard

    @property
    def alive(self) -> bool:
        """Whether it is open, as far as is known."""
        return self.connection.state is ConnectionState.OPEN and self._witness.alive

    def release(self) -> None:
        """Watch it no more."""
        self._timer.cancel()
        self._witness.release()

    async def close(self) -> None:
        """Close the connection, within its bound."""
        self.release()
        await self.connection.aclose()

    def _look(self) -> None:
        self.stable = self.alive
