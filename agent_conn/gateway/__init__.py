"""A real inference gateway on this machine, for tests, demonstrations and benchmarks.

`Gateway` serves speech-to-text and text-to-speech over websockets, records who called, and
misbehaves on demand. With aiohttp alone it has a scripted engine; TLS and inference tokens
need ``agent-conn[cli]``, real speech ``agent-conn[speech]``.
"""

from __future__ import annotations

from agent_conn.gateway.faults.kinds import (
    FAULTS,
    AcceptAndClose,
    BadAccept,
    CloseWith,
    ConcurrencyLimit,
    DropAfter,
    DropHandshake,
    Fault,
    Garbage,
    GoSilent,
    IdleTimeout,
    IgnoreClose,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    SessionLimit,
    StallAtAccept,
    StallAtTLS,
    StallInHandshake,
    StopReading,
    UnaskedExtension,
    UnaskedSubprotocol,
)
from agent_conn.gateway.faults.plan import Injection
from agent_conn.gateway.inspector.pages import Inspector
from agent_conn.gateway.server.gateway import Gateway
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.tokens import InvalidToken, mint_token, verify_token
from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.speech.engine import (
    Recognizer,
    SpeechEngine,
    SpeechFailed,
    SpeechUnavailable,
    SpokenAudio,
    Transcript,
    Word,
)
from agent_conn.gateway.speech.espeak import Voice
from agent_conn.gateway.speech.local import LocalSpeech
from agent_conn.gateway.speech.scripted import ScriptedEngine

__all__ = [
    "FAULTS",
    "AcceptAndClose",
    "BadAccept",
    "CloseWith",
    "ConcurrencyLimit",
    "Connection",
    "DropAfter",
    "DropHandshake",
    "Fault",
    "Garbage",
    "Gateway",
    "GoSilent",
    "Handshake",
    "IdleTimeout",
    "IgnoreClose",
    "Injection",
    "Inspector",
    "InvalidToken",
    "LocalSpeech",
    "NotWebSocket",
    "Recognizer",
    "Redirect",
    "Reject",
    "Reset",
    "ScriptedEngine",
    "SessionLimit",
    "SpeechEngine",
    "SpeechFailed",
    "SpeechUnavailable",
    "SpokenAudio",
    "StallAtAccept",
    "StallAtTLS",
    "StallInHandshake",
    "StopReading",
    "Transcript",
    "UnaskedExtension",
    "UnaskedSubprotocol",
    "Voice",
    "Word",
    "mint_token",
    "verify_token",
]
