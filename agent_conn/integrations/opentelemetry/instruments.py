"""The metrics of connections and replays."""

from __future__ import annotations

from opentelemetry.metrics import Meter
from yarl import URL

from agent_conn._reconnect.replay import GiveUpReason
from agent_conn._record import ConnectionRecord
from agent_conn.integrations.opentelemetry.attributes import (
    LEVEL,
    OTHER,
    OUTCOME,
    PHASE,
    REASON,
    Attributes,
    Few,
    label,
    phases,
)

MAX_PLACES = 32
"""Different servers, and different paths, that metrics tell apart."""

_OPENING_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The conventions' buckets for ``http.client.request.duration``."""
_LIFE_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""The conventions' buckets for ``http.client.connection.duration``."""


class Instruments:
    """Every instrument but those of the pools, and what is recorded on each."""

    def __init__(self, meter: Meter) -> None:
        self._servers = Few(MAX_PLACES)
        self._paths = Few(MAX_PLACES)
        self._connects = meter.create_histogram(
            "agent_conn.connect.duration",
            unit="s",
            description="From the call to open until open, failed or cancelled.",
            explicit_bucket_boundaries_advisory=_OPENING_SECONDS,
        )
        self._phases = meter.create_histogram(
            "agent_conn.phase.duration",
            unit="s",
            description="One phase of opening that came to its end.",
            explicit_bucket_boundaries_advisory=_OPENING_SECONDS,
        )
        self._redials = meter.create_counter(
            "agent_conn.redials",
            unit="{redial}",
            description="Attempts of reconnect loops after the first.",
        )
        self._open = meter.create_up_down_counter(
            "agent_conn.open_connections", unit="{connection}", description="Open connections."
        )
        self._lives = meter.create_histogram(
            "agent_conn.connection.duration",
            unit="s",
            description="From open until closed.",
            explicit_bucket_boundaries_advisory=_LIFE_SECONDS,
        )
        self._given_up = meter.create_counter(
            "agent_conn.replay.given_up_items",
            unit="{item}",
            description="Items that a replay buffer gave up.",
        )
        self._given_up_time = meter.create_counter(
            "agent_conn.replay.given_up_time",
            unit="s",
            description="Audio that a replay buffer gave up.",
        )

    def place(self, url: URL) -> Attributes:
        """Where a connection leads, in few different values."""
        server = self._servers(f"{url.host}:{url.port}")
        path = self._paths(url.path)
        if server == OTHER:
            return {"server.address": OTHER, "url.template": path}
        place: Attributes = {"server.address": url.host or "", "url.template": path}
        if url.port is not None:
            place["server.port"] = url.port
        return place

    def connected(
        self, place: Attributes, record: ConnectionRecord, outcome: Attributes, seconds: float
    ) -> None:
        """An opening came to its end."""
        self._connects.record(seconds, {**place, **outcome, LEVEL: label(record.attribution)})
        for name, _, length in phases(record):
            self._phases.record(length, {**place, PHASE: name})
        if record.redial:
            self._redials.add(1, {**place, OUTCOME: outcome[OUTCOME]})

    def opened(self, place: Attributes, record: ConnectionRecord) -> None:
        """A connection became open."""
        self._open.add(1, {**place, LEVEL: label(record.attribution)})

    def left_open(self, place: Attributes, record: ConnectionRecord) -> None:
        """A connection is open no longer."""
        self._open.add(-1, {**place, LEVEL: label(record.attribution)})

    def closed(
        self, place: Attributes, record: ConnectionRecord, ending: Attributes, seconds: float
    ) -> None:
        """A connection that was open is closed."""
        self._lives.record(seconds, {**place, **ending, LEVEL: label(record.attribution)})

    def given_up(self, seconds: float, reason: GiveUpReason, items: int) -> None:
        """A replay buffer gave items up."""
        self._given_up.add(items, {REASON: label(reason)})
        self._given_up_time.add(seconds, {REASON: label(reason)})
