"""Attributed, bounded, recorded websockets from voice agents to an inference gateway."""

from agent_conn.connection import InferenceConnection, OpenHook
from agent_conn.errors import (
    AgentConnError,
    AttributionUnavailable,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DialFailed,
    HandshakeInvalid,
    HandshakeRejected,
    OpenHookFailed,
    Phase,
    PoolTimeout,
    Quota,
    StateError,
    TokenUnavailable,
)
from agent_conn.identity import AgentIdentity, AttributionLevel, HeaderNames
from agent_conn.lease import Lease, Probe
from agent_conn.ledger import CloseReason
from agent_conn.lifecycle import TRANSITIONS, ConnectionState, Ending, Transition
from agent_conn.pool import ConnectionPool
from agent_conn.pool_statistics import PoolStatistics
from agent_conn.readiness import RoomConnected, WaitOutcome
from agent_conn.record import ConnectionObserver, ConnectionRecord, StateChanged
from agent_conn.sources import IdentitySource, TokenSource

__version__ = "0.1.0"

__all__ = [
    "TRANSITIONS",
    "AgentConnError",
    "AgentIdentity",
    "AttributionLevel",
    "AttributionUnavailable",
    "CloseReason",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLost",
    "ConnectionObserver",
    "ConnectionPool",
    "ConnectionRecord",
    "ConnectionState",
    "DialFailed",
    "Ending",
    "HandshakeInvalid",
    "HandshakeRejected",
    "HeaderNames",
    "IdentitySource",
    "InferenceConnection",
    "Lease",
    "OpenHook",
    "OpenHookFailed",
    "Phase",
    "PoolStatistics",
    "PoolTimeout",
    "Probe",
    "Quota",
    "RoomConnected",
    "StateChanged",
    "StateError",
    "TokenSource",
    "TokenUnavailable",
    "Transition",
    "WaitOutcome",
    "__version__",
]
