"""The metrics of pools, read from their statistics whenever metrics are collected."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from agent_conn._pool.pool import ConnectionPool, PoolStatistics
from agent_conn.integrations.opentelemetry.attributes import POOL, REASON, Attributes, Few, label

MAX_NAMES = 32

Counts = Mapping[str | bool, int]


class Reading(NamedTuple):
    """One metric of pools: a sum over those of one name, for each value of ``attribute``."""

    name: str
    unit: str
    description: str
    attribute: str | None
    read: Callable[[PoolStatistics], Counts]
    grows: bool
    """Whether it counts what was done, or else what there is now."""


READINGS = (
    Reading(
        "agent_conn.pool.connection.count",
        "{connection}",
        "Connections that pools own.",
        "agent_conn.pool.state",
        lambda now: {
            "idle": now.idle,
            "used": now.in_use,
            "dialing": now.dialing,
            "closing": now.closing,
        },
        grows=False,
    ),
    Reading(
        "agent_conn.pool.pending_requests",
        "{request}",
        "Tasks that wait for a connection.",
        None,
        lambda now: {"": now.waiting},
        grows=False,
    ),
    Reading(
        "agent_conn.pool.loans",
        "{loan}",
        "Connections lent.",
        "agent_conn.pool.reused",
        lambda now: {True: now.reused, False: now.acquired - now.reused},
        grows=True,
    ),
    Reading(
        "agent_conn.pool.timeouts",
        "{timeout}",
        "Tasks that waited in vain.",
        None,
        lambda now: {"": now.timeouts},
        grows=True,
    ),
    Reading(
        "agent_conn.pool.closes",
        "{connection}",
        "Connections that pools closed.",
        REASON,
        lambda now: {label(reason): count for reason, count in now.closed.items()},
        grows=True,
    ),
)


@dataclass(slots=True)
class _Group:
    """The pools of one name, and what those did that are closed."""

    pools: list[ConnectionPool] = field(default_factory=list)
    past: dict[str, Counter[str | bool]] = field(default_factory=dict)

    def retire(self) -> None:
        """Keep the counts of pools that are closed, and let go of the pools."""
        for pool in [pool for pool in self.pools if pool.closed]:
            statistics = pool.statistics()
            if not statistics.size:
                self.pools.remove(pool)
                for reading in READINGS:
                    # What does not grow is 0 by now, and stays in sight as such.
                    past = self.past.setdefault(reading.name, Counter())
                    past.update(reading.read(statistics))

    def total(self, reading: Reading) -> Counter[str | bool]:
        total = Counter(self.past.get(reading.name))
        for pool in self.pools:
            total.update(reading.read(pool.statistics()))
        return total


class PoolMetrics:
    """Observable metrics of the pools that were added. Any thread may collect them."""

    def __init__(self, meter: Meter) -> None:
        self._names = Few(MAX_NAMES)
        self._groups: dict[str, _Group] = {}
        self._lock = threading.Lock()
        for reading in READINGS:
            create = (
                meter.create_observable_counter
                if reading.grows
                else meter.create_observable_up_down_counter
            )
            create(
                reading.name,
                callbacks=[partial(self._observe, reading)],
                unit=reading.unit,
                description=reading.description,
            )

    def add(self, pool: ConnectionPool, name: str) -> None:
        """Observe ``pool`` until it is closed."""
        with self._lock:
            for group in self._groups.values():
                group.retire()
            group = self._groups.setdefault(self._names(name), _Group())
            if pool not in group.pools:
                group.pools.append(pool)

    def _observe(self, reading: Reading, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            observations = []
            for name, group in self._groups.items():
                group.retire()
                for value, count in group.total(reading).items():
                    attributes: Attributes = {POOL: name}
                    if reading.attribute is not None:
                        attributes[reading.attribute] = value
                    observations.append(Observation(count, attributes))
            return observations
