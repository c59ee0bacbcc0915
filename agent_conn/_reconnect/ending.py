"""Wait for tasks to end, whatever happens to the one that waits."""

from __future__ import annotations

import asyncio
from typing import Any


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Wait until all ``tasks`` have ended; what they raised is left to who looks.

    Cancelled meanwhile, it cancels them and still waits, and then raises: some frameworks
    cancel again at every await.
    """
    cancelled: asyncio.CancelledError | None = None
    while left := {task for task in tasks if not task.done()}:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
            for task in left:
                task.cancel()
    if cancelled is not None:
        raise cancelled
