"""The threads in which an engine's blocking calls run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from agent_conn.gateway.speech.engine import SpeechFailed

P = ParamSpec("P")
T = TypeVar("T")


class EngineThreads:
    """Runs blocking calls off the event loop until it is closed."""

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="agent-conn-speech")
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether no call is taken any more."""
        return self._closed

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` in a thread; cancelling leaves it to end there.

        Raises:
            SpeechFailed: the threads are closed.
        """
        if self._closed:
            raise SpeechFailed("the speech engine is closed; make a new one")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: call(*args, **kwargs))

    def begin_close(self) -> None:
        """Take no further call. Idempotent."""
        self._closed = True

    def join(self) -> None:
        """Wait until the calls under way have ended. Blocks; idempotent."""
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)
