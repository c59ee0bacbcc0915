"""``Telemetry``: the observer that makes spans and metrics."""

from __future__ import annotations

from opentelemetry import metrics, propagate, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

import agent_conn
from agent_conn._lifecycle import ConnectionState
from agent_conn._options import check_type
from agent_conn._pool.pool import ConnectionPool
from agent_conn._reconnect.replay import GiveUpReason
from agent_conn._record import ConnectionRecord, StateChanged
from agent_conn.errors import ConfigurationError
from agent_conn.integrations.opentelemetry.follower import Follower
from agent_conn.integrations.opentelemetry.instruments import Instruments
from agent_conn.integrations.opentelemetry.pools import PoolMetrics

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
"""The release of the semantic conventions that the names are from."""


class Telemetry:
    """Spans and metrics of every connection that it observes. One serves a whole process.

    ::

        telemetry = Telemetry()
        dial = partial(InferenceConnection, session, url, observer=telemetry,
                       trace_headers=telemetry.headers)

    Each connection gives a span ``agent_conn.connect``, with its phases as events, and one
    ``agent_conn.connection`` from open to closed. They belong to the trace of the span that is
    current where the connection is opened: a ``reconnect`` loop inside one span has all its
    attempts in one trace. In a LiveKit job that is the ``agent_session`` span, whose
    ``gen_ai.conversation.id`` ours carry too. Spans carry the ids, metrics do not. Nothing has
    a header's value, a token, a URL's query or what a peer answered.

    Args:
        tracer_provider: gives the tracer; None: the global one, also where it is set later.
        meter_provider: gives the meter; likewise.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        name, version = agent_conn.__name__, agent_conn.__version__
        meter = metrics.get_meter(name, version, meter_provider, SCHEMA_URL)
        self._tracer = trace.get_tracer(name, version, tracer_provider, SCHEMA_URL)
        self._instruments = Instruments(meter)
        self._pools = PoolMetrics(meter)
        self._followers: dict[str, Follower] = {}

    def __call__(self, change: StateChanged) -> None:
        """Take note of a change of state, as the ``observer`` of a connection."""
        session_id = change.record.session_id
        follower = self._followers.get(session_id)
        if follower is not None:
            if change.state is ConnectionState.CLOSED:
                del self._followers[session_id]
            follower.follow(change)
        elif change.state in {ConnectionState.WAITING, ConnectionState.DIALING}:
            follower = Follower(self._tracer, self._instruments, change)
            self._followers[session_id] = follower

    def headers(self, record: ConnectionRecord) -> dict[str, str]:
        """The connect span's ``traceparent``, as the ``trace_headers`` of a connection.

        The global propagator makes it, by default with the current baggage.
        """
        carrier: dict[str, str] = {}
        follower = self._followers.get(record.session_id)
        if follower is not None:
            propagate.inject(carrier, follower.context())
        return carrier

    def observe_pool(self, pool: ConnectionPool, name: str = "default") -> None:
        """Have metrics tell what ``pool`` owns and does, until it is closed.

        ``name`` is one of a few: pools of one name are added up.

        Raises:
            ConfigurationError: an argument is wrong, named in the message.
        """
        _check_pool(pool, name)
        self._pools.add(pool, name)

    def given_up(self, seconds: float, reason: GiveUpReason, items: int = 1) -> None:
        """Count what a ``ReplayBuffer`` gives up, as its ``on_give_up``."""
        self._instruments.given_up(seconds, reason, items)


def _check_pool(pool: object, name: object) -> None:
    check_type("pool", pool, ConnectionPool)
    if not check_type("name", name, str):
        raise ConfigurationError("name must not be empty, got ''")
