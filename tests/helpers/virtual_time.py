"""An event loop with real sockets on a clock that jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from agent_conn.gateway import Gateway

T = TypeVar("T")

GRACE = 0.002
"""Seconds of real time in which a thread or the kernel may still have something to say."""


class _Selector(selectors.DefaultSelector):
    """Never waits for a timer: when nothing is to be read, it is the timer's time."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self.now = 0.0
        self.quiet: Callable[[], bool] = lambda: False
        self.grace = grace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        ready = super().select(self.grace)
        if ready or self.quiet():
            return ready
        if timeout is None:
            return list(super().select(None))
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """As asyncio's own, but its time passes only when nothing else happens."""

    def __init__(self, grace: float = GRACE) -> None:
        self._clock = _Selector(grace)
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._clock.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As asyncio's, without its bound, which virtual time would reach at once."""
        await super().shutdown_default_executor()

    async def settle(self) -> None:
        """Return once everything waits: for a timer, or for a task that calls this."""
        settled = self.create_future()

        def quiet() -> bool:
            if not settled.done():
                settled.set_result(None)
            return True

        self._clock.quiet = quiet
        try:
            await settled
        finally:
            self._clock.quiet = lambda: False


def _virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def settle() -> None:
    """``VirtualLoop.settle`` of the running loop."""
    await _virtual_loop().settle()


async def elapse(seconds: float) -> None:
    """Let virtual time pass, and all that happens in it. On a real clock this fails."""
    _virtual_loop()
    await asyncio.sleep(seconds)


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, T]], grace: float = GRACE) -> T:
    """Run ``main`` in virtual time. What the loop has to report fails it."""
    reports: list[Mapping[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        return await main()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(grace)) as runner:
        result = runner.run(watched())
    assert reports == []
    return result


async def until_idle(gateway: Gateway) -> None:
    """Wait until ``gateway`` has no socket, for at most ten seconds of real time.

    A socket that is not read is looked at in a thread, which virtual time outruns.
    """
    deadline = time.monotonic() + 10.0
    while True:
        try:
            return await gateway.wait_idle()
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
