"""Attributed, bounded, recorded websockets from voice agents to an inference gateway."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from agent_conn._connection import InferenceConnection
from agent_conn._dial.endpoints import Endpoints
from agent_conn._dial.open_hook import OpenHook
from agent_conn._identity import AgentIdentity, AttributionLevel, HeaderNames, IdentitySource
from agent_conn._lifecycle import TRANSITIONS, ConnectionState, Ending, Transition
from agent_conn._options import HeadersSource, TlsSetting, TokenSource, UrlSource
from agent_conn._record import ConnectionObserver, ConnectionRecord, StateChanged, TraceHeaders
from agent_conn._room import RoomConnected, WaitOutcome
from agent_conn._usage import Usage, UsageMeter
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
    RetriesExhausted,
    StateError,
    TokenUnavailable,
)

if TYPE_CHECKING:
    from agent_conn._attribution import AttributionMiddleware
    from agent_conn._pool.acquire import Lease, Probe
    from agent_conn._pool.liveness import Keepalive
    from agent_conn._pool.maintenance import Reset
    from agent_conn._pool.pool import ConnectionPool, PoolStatistics
    from agent_conn._pool.slot import CloseReason
    from agent_conn._reconnect.attempts import DialFactory
    from agent_conn._reconnect.handover import Drain, UpgradePolicy
    from agent_conn._reconnect.loop import Reconnector, reconnect
    from agent_conn._reconnect.pump import Pump
    from agent_conn._reconnect.replay import GiveUpReason, ReplayBuffer, ReplayStatistics
    from agent_conn._reconnect.retry import Classify, RandomSource, RetryPolicy, classify_failure
    from agent_conn._reconnect.standby import Standby
    from agent_conn._reconnect.statistics import ReconnectState, ReconnectStatistics

__version__ = "0.1.0"

logging.getLogger("agent_conn").addHandler(logging.NullHandler())

__all__ = [
    "TRANSITIONS",
    "AgentConnError",
    "AgentIdentity",
    "AttributionLevel",
    "AttributionMiddleware",
    "AttributionUnavailable",
    "Classify",
    "CloseReason",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLost",
    "ConnectionObserver",
    "ConnectionPool",
    "ConnectionRecord",
    "ConnectionState",
    "DialFactory",
    "DialFailed",
    "Drain",
    "Ending",
    "Endpoints",
    "GiveUpReason",
    "HandshakeInvalid",
    "HandshakeRejected",
    "HeaderNames",
    "HeadersSource",
    "IdentitySource",
    "InferenceConnection",
    "Keepalive",
    "Lease",
    "OpenHook",
    "OpenHookFailed",
    "Phase",
    "PoolStatistics",
    "PoolTimeout",
    "Probe",
    "Pump",
    "Quota",
    "RandomSource",
    "ReconnectState",
    "ReconnectStatistics",
    "Reconnector",
    "ReplayBuffer",
    "ReplayStatistics",
    "Reset",
    "RetriesExhausted",
    "RetryPolicy",
    "RoomConnected",
    "StateChanged",
    "Standby",
    "StateError",
    "TlsSetting",
    "TokenSource",
    "TokenUnavailable",
    "TraceHeaders",
    "Transition",
    "UpgradePolicy",
    "UrlSource",
    "Usage",
    "UsageMeter",
    "WaitOutcome",
    "__version__",
    "classify_failure",
    "reconnect",
]

# Imported on first use: together they take as long to import as all the rest.
_ON_DEMAND = {
    "AttributionMiddleware": "_attribution",
    "Classify": "_reconnect.retry",
    "classify_failure": "_reconnect.retry",
    "CloseReason": "_pool.slot",
    "ConnectionPool": "_pool.pool",
    "DialFactory": "_reconnect.attempts",
    "Drain": "_reconnect.handover",
    "GiveUpReason": "_reconnect.replay",
    "Keepalive": "_pool.liveness",
    "Lease": "_pool.acquire",
    "PoolStatistics": "_pool.pool",
    "Probe": "_pool.acquire",
    "Pump": "_reconnect.pump",
    "RandomSource": "_reconnect.retry",
    "reconnect": "_reconnect.loop",
    "Reconnector": "_reconnect.loop",
    "ReconnectState": "_reconnect.statistics",
    "ReconnectStatistics": "_reconnect.statistics",
    "ReplayBuffer": "_reconnect.replay",
    "ReplayStatistics": "_reconnect.replay",
    "Reset": "_pool.maintenance",
    "RetryPolicy": "_reconnect.retry",
    "Standby": "_reconnect.standby",
    "UpgradePolicy": "_reconnect.handover",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
