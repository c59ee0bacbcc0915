"""What all loops to one origin know of it together, and whose turn it is to dial it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from yarl import URL

from agent_conn._dial.endpoints import Endpoints

FAILURES = 5
"""Failed dials in a row, of any loops, after which an origin counts as down."""
LEAST_BETWEEN_PROBES = 1.0
MOST_BETWEEN_PROBES = 5.0
SPREAD = 1.0
"""Seconds over which those that waited dial once a probe got through."""


def probe_interval(lasted: float, random: Callable[[], float]) -> float:
    """Seconds until the next probe of an origin that has been down for ``lasted`` seconds.

    About half of that, within bounds. Both draws are needed for processes that lost it together
    to come back evenly: the first scatters them, the second keeps them so at the upper bound
    (``python benchmarks/storm.py``: peak by mean 1.4, and 1.8 without the first).
    """
    about = lasted * (0.25 + 0.5 * random())
    return min(max(about, LEAST_BETWEEN_PROBES), MOST_BETWEEN_PROBES) * (1 - 0.2 * random())


class Redial:
    """A dial that one loop waits for. Times are of the event loop's clock.

    Args:
        due: when to dial, as far as the loop itself is concerned.
        least: when to dial at the earliest, whatever others find.
        random: gives numbers from 0 to 1.
    """

    def __init__(self, due: float, least: float, random: Callable[[], float]) -> None:
        self.due = due
        self.least = least
        self.random = random
        self.changed = asyncio.Event()

    @property
    def forced(self) -> bool:
        """Whether its loop waits no longer, be it to dial or to close."""
        return self.due == -math.inf

    def dial_now(self) -> None:
        """End the wait."""
        self.due = -math.inf
        self.changed.set()


class OriginHealth:
    """Whether an origin answers. While it does not, the loops probe it one after another.

    A probe that opens ends the others' wait, spread over a second. One that hangs does not hold
    the next one up.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._down_since: float | None = None
        self._next_probe = -math.inf
        self._redials: list[Redial] = []

    @property
    def down(self) -> bool:
        """Whether the last dials all failed."""
        return self._down_since is not None

    def failed(self, random: Callable[[], float]) -> None:
        """A dial of any loop found the origin out of order."""
        self._failures += 1
        if self._failures == FAILURES:
            self._down_since = _now()
            self._next_probe = _now() + probe_interval(0.0, random)
            self._tell_first()

    def opened(self) -> None:
        """A dial of any loop got through."""
        self._failures = 0
        if self._down_since is not None:
            self._down_since = None
            for redial in self._redials:
                if redial.forced:
                    continue
                redial.due = max(redial.least, _now()) + redial.random() * SPREAD
                redial.changed.set()

    async def wait(self, redial: Redial) -> None:
        """Return when ``redial`` has come."""
        self._redials.append(redial)
        self._tell_first()
        try:
            while (at := self._time_of(redial)) > _now():
                redial.changed.clear()
                if not await _within(redial.changed, at) and self._time_of(redial) <= at:
                    break
            if self._down_since is not None and not redial.forced:
                lasted = _now() - self._down_since
                self._next_probe = _now() + probe_interval(lasted, redial.random)
        finally:
            self._redials.remove(redial)
            self._tell_first()

    def _time_of(self, redial: Redial) -> float:
        alone = len(self._redials) == 1
        if self._down_since is None or alone or redial.forced:
            return redial.due
        return max(self._next_probe, redial.least) if redial is self._first() else math.inf

    def _first(self) -> Redial:
        return min(
            self._redials, key=lambda redial: (max(redial.least, self._next_probe), redial.due)
        )

    def _tell_first(self) -> None:
        if self._redials:
            self._first().changed.set()


_shared: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, URL | Endpoints], OriginHealth] = (
    WeakValueDictionary()
)
"""By event loop and origin, for as long as a loop holds it: an outage is no loop's own."""


def health_of(origin: URL | Endpoints) -> OriginHealth:
    """The health of ``origin`` that the loops of the running event loop share.

    Endpoints are as one: a dial to them has failed once it has failed at each.
    """
    return _shared.setdefault((asyncio.get_running_loop(), origin), OriginHealth())


async def _within(event: asyncio.Event, at: float) -> bool:
    """Wait for ``event`` until ``at``; whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(None if math.isinf(at) else at):
            return await event.wait()
    return False


def _now() -> float:
    return asyncio.get_running_loop().time()
