"""Ends what runs on SIGINT and SIGTERM, at leisure on the first and at once on the second."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopped_by_signals(on_stop: Callable[[], None]) -> Iterator[None]:
    """On the first signal, end the block by cancelling its task. A second signal kills.

    A signal that was ignored from the start stays so, as SIGINT is in a shell's background.
    Windows' loops take no signal handlers; there Ctrl-C is a KeyboardInterrupt.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    taken = () if sys.platform == "win32" else STOP_SIGNALS
    signals = [each for each in taken if signal.getsignal(each) is not signal.SIG_IGN]
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        on_stop()
        if task is not None:
            task.cancel()

    for each in signals:
        loop.add_signal_handler(each, stop)
    try:
        yield
    except asyncio.CancelledError:
        if not stopping or task is None or task.uncancel():
            raise
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
