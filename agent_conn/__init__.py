"""Attributed, bounded, recorded websockets from voice agents to an inference gateway."""

import logging

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
    Quota,
    StateError,
    TokenUnavailable,
)
from agent_conn.identity import AgentIdentity, AttributionLevel, HeaderNames
from agent_conn.lifecycle import TRANSITIONS, ConnectionState, Ending, Transition
from agent_conn.middleware import AttributionMiddleware
from agent_conn.readiness import RoomConnected, WaitOutcome
from agent_conn.record import ConnectionObserver, ConnectionRecord, StateChanged
from agent_conn.sources import IdentitySource, TokenSource

__version__ = "0.1.0"

logging.getLogger("agent_conn").addHandler(logging.NullHandler())

__all__ = [
    "TRANSITIONS",
    "AgentConnError",
    "AgentIdentity",
    "AttributionLevel",
    "AttributionMiddleware",
    "AttributionUnavailable",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLost",
    "ConnectionObserver",
    "ConnectionRecord",
    "ConnectionState",
    "DialFailed",
    "Ending",
    "HandshakeInvalid",
    "HandshakeRejected",
    "HeaderNames",
    "IdentitySource",
    "InferenceConnection",
    "OpenHook",
    "OpenHookFailed",
    "Phase",
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
