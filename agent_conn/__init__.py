"""Attributed, bounded, recorded websockets from voice agents to an inference gateway."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_conn._attribution import AttributionMiddleware
    from agent_conn._connection import InferenceConnection
    from agent_conn._dial.endpoints import Endpoints
    from agent_conn._dial.open_hook import OpenHook
    from agent_conn._identity import AgentIdentity, AttributionLevel, HeaderNames, IdentitySource
    from agent_conn._lifecycle import TRANSITIONS, ConnectionState, Ending, Transition
    from agent_conn._options import HeadersSource, TlsSetting, TokenSource, UrlSource
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

# Imported on first use, so that the pytest plugin costs nothing where no test asks for it.
_MODULES = {
    "_attribution": ("AttributionMiddleware",),
    "_connection": ("InferenceConnection",),
    "_dial.endpoints": ("Endpoints",),
    "_dial.open_hook": ("OpenHook",),
    "_identity": (
        "AgentIdentity",
        "AttributionLevel",
        "HeaderNames",
        "IdentitySource",
    ),
    "_lifecycle": (
        "ConnectionState",
        "Ending",
        "TRANSITIONS",
        "Transition",
    ),
    "_options": (
        "HeadersSource",
        "TlsSetting",
        "TokenSource",
        "UrlSource",
    ),
    "_pool.acquire": (
        "Lease",
        "Probe",
    ),
    "_pool.liveness": ("Keepalive",),
    "_pool.maintenance": ("Reset",),
    "_pool.pool": (
        "ConnectionPool",
        "PoolStatistics",
    ),
    "_pool.slot": ("CloseReason",),
    "_reconnect.attempts": ("DialFactory",),
    "_reconnect.handover": (
        "Drain",
        "UpgradePolicy",
    ),
    "_reconnect.loop": (
        "Reconnector",
        "reconnect",
    ),
    "_reconnect.pump": ("Pump",),
    "_reconnect.replay": (
        "GiveUpReason",
        "ReplayBuffer",
        "ReplayStatistics",
    ),
    "_reconnect.retry": (
        "Classify",
        "RandomSource",
        "RetryPolicy",
        "classify_failure",
    ),
    "_reconnect.standby": ("Standby",),
    "_reconnect.statistics": (
        "ReconnectState",
        "ReconnectStatistics",
    ),
    "_record": (
        "ConnectionObserver",
        "ConnectionRecord",
        "StateChanged",
        "TraceHeaders",
    ),
    "_room": (
        "RoomConnected",
        "WaitOutcome",
    ),
    "_usage": (
        "Usage",
        "UsageMeter",
    ),
    "errors": (
        "AgentConnError",
        "AttributionUnavailable",
        "ConfigurationError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectionLost",
        "DialFailed",
        "HandshakeInvalid",
        "HandshakeRejected",
        "OpenHookFailed",
        "Phase",
        "PoolTimeout",
        "Quota",
        "RetriesExhausted",
        "StateError",
        "TokenUnavailable",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value
