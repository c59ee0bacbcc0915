"""A limit on wrong tokens: each address has a few at once, and then one every few seconds."""

from __future__ import annotations

import math
from collections import OrderedDict

BURST = 20
SECONDS_PER_GUESS = 3.0
MAX_ADDRESSES = 1024


class GuessLimit:
    """Counts the wrong tokens of each address; `now` is any clock's, in seconds."""

    def __init__(self) -> None:
        # When all guesses of an address are forgiven: each adds `SECONDS_PER_GUESS`.
        self._forgiven_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> int:
        """Return for how many whole seconds `address` may not try, 0 if it may."""
        most = (BURST - 1) * SECONDS_PER_GUESS
        return max(0, math.ceil(self._forgiven_at.get(address, 0.0) - now - most))

    def wrong(self, address: str, now: float) -> None:
        """Count a wrong token."""
        forgiven_at = max(self._forgiven_at.pop(address, 0.0), now)
        self._forgiven_at[address] = forgiven_at + SECONDS_PER_GUESS
        if len(self._forgiven_at) > MAX_ADDRESSES:
            self._forgiven_at.popitem(last=False)
