"""What becomes of one connection, by where the fault strikes it, and by the way out."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace

from matrix.vocabulary import Empty, Fault, Place, Result, Way

from agent_conn import (
    ConnectionLost,
    ConnectTimeout,
    DialFailed,
    Ending,
    HandshakeInvalid,
    HandshakeRejected,
    OpenHookFailed,
    Phase,
    StateError,
)

Outcome = Result | Empty


@dataclass(frozen=True)
class Fate:
    """The four ways out of a fault in a place."""

    nothing: Outcome
    cancel: Outcome
    aclose: Outcome
    deadline: Outcome

    def by(self, way: Way) -> Outcome:
        """The outcome of ``way``."""
        outcome: Outcome = getattr(self, way.name.lower())
        return outcome


GOES_ON = Result()
CANCELLED = Result(asyncio.CancelledError)
STOPPED = Result(StateError)


def at_once(result: Result) -> Fate:
    """The fault itself ends it."""
    return Fate(result, Empty.AT_ONCE, Empty.AT_ONCE, Empty.AT_ONCE)


def held(deadline: Phase | Outcome) -> Fate:
    """The fault holds up an opening until somebody acts; a phase is where a timeout says so."""
    if isinstance(deadline, Phase):
        deadline = Result(ConnectTimeout, deadline)
    return Fate(Empty.UNENDING, CANCELLED, STOPPED, deadline)


PASSES = Fate(GOES_ON, Empty.PASSES, Empty.PASSES, Empty.PASSES)
BROKEN_OFF = at_once(Result(ConnectionLost, code=1006, ending=Ending.LOST))

# The pre-dialled connection is struck during the wait, or while the token is minted. Lost
# without a trace it fails the handshake; found dead it is replaced by one cold dial.
WAITING = {
    Fault.NONE: replace(held(GOES_ON), nothing=Empty.WELL),
    Fault.LOSE: held(Phase.HANDSHAKE),
    Fault.STALL: held(Phase.HANDSHAKE),
    Fault.TRICKLE: held(Phase.HANDSHAKE),
    Fault.RESTORE: PASSES,
    Fault.DELAY: PASSES,
    Fault.RESET: replace(held(GOES_ON), nothing=GOES_ON),
    Fault.HALF_CLOSE: replace(held(GOES_ON), nothing=GOES_ON),
}
TOKEN = {
    Fault.NONE: replace(held(Phase.TOKEN), nothing=Empty.WELL),
    Fault.LOSE: held(Phase.TOKEN),
    Fault.STALL: held(Phase.TOKEN),
    Fault.TRICKLE: held(Phase.TOKEN),
    Fault.RESTORE: PASSES,
    Fault.DELAY: PASSES,
    Fault.RESET: replace(held(Phase.TOKEN), nothing=GOES_ON),
    Fault.HALF_CLOSE: replace(held(Phase.TOKEN), nothing=GOES_ON),
}
DIAL = {
    Fault.LOSE: held(Phase.DIAL),
    Fault.RESET: at_once(Result(DialFailed, Phase.DIAL)),
    Fault.REFUSE: at_once(Result(DialFailed, Phase.DIAL)),
}
TLS = {
    Fault.LOSE: held(Phase.DIAL),
    Fault.STALL: held(Phase.DIAL),
    Fault.TRICKLE: held(Phase.DIAL),
    Fault.RESTORE: PASSES,
    Fault.DELAY: PASSES,
    Fault.RESET: at_once(Result(DialFailed, Phase.DIAL)),
    Fault.HALF_CLOSE: at_once(Result(DialFailed, Phase.DIAL)),
}
HANDSHAKE = {
    Fault.LOSE: held(Phase.HANDSHAKE),
    Fault.STALL: held(Phase.HANDSHAKE),
    Fault.TRICKLE: held(Phase.HANDSHAKE),
    Fault.RESTORE: PASSES,
    Fault.DELAY: PASSES,
    Fault.RESET: at_once(Result(DialFailed, Phase.HANDSHAKE)),
    Fault.HALF_CLOSE: at_once(Result(DialFailed, Phase.HANDSHAKE)),
    Fault.REJECT: at_once(Result(HandshakeRejected, Phase.HANDSHAKE)),
    Fault.UNAVAILABLE: at_once(Result(HandshakeRejected, Phase.HANDSHAKE)),
    Fault.REDIRECT: at_once(Result(HandshakeInvalid, Phase.HANDSHAKE)),
    Fault.GARBAGE: at_once(Result(HandshakeInvalid, Phase.HANDSHAKE)),
    Fault.BAD_ACCEPT: at_once(Result(HandshakeInvalid, Phase.HANDSHAKE)),
    Fault.UNASKED: at_once(Result(HandshakeInvalid, Phase.HANDSHAKE)),
    Fault.NOT_WEBSOCKET: at_once(Result(HandshakeInvalid, Phase.HANDSHAKE)),
}
ON_OPEN = {
    Fault.NONE: replace(held(Phase.ON_OPEN), nothing=Empty.WELL),
    Fault.LOSE: held(Phase.ON_OPEN),
    Fault.STALL: held(Phase.ON_OPEN),
    Fault.TRICKLE: held(Phase.ON_OPEN),
    Fault.RESTORE: PASSES,
    Fault.DELAY: PASSES,
    Fault.RESET: at_once(Result(OpenHookFailed, Phase.ON_OPEN)),
    Fault.HALF_CLOSE: at_once(Result(OpenHookFailed, Phase.ON_OPEN)),
    Fault.CLOSE_1011: at_once(Result(OpenHookFailed, Phase.ON_OPEN)),
    Fault.CLOSE_1008: at_once(Result(OpenHookFailed, Phase.ON_OPEN)),
    Fault.SILENT: held(Phase.ON_OPEN),
}
# A reader that was cancelled has left a code on the websocket, and then aiohttp's close waits
# for no answer: CLOSED_HERE, at once. The deadline is the heartbeat.
_NOT_READ = replace(CANCELLED, ending=Ending.CLOSED_HERE)
_SILENCE = Fate(
    Empty.UNENDING,
    _NOT_READ,
    Result(ending=Ending.ABORTED),
    Result(ConnectionLost, code=1006, ending=Ending.LOST),
)
READING = {
    Fault.NONE: Fate(Empty.WELL, _NOT_READ, Result(ending=Ending.CLOSED_HERE), Empty.UNBOUNDED),
    Fault.LOSE: _SILENCE,
    Fault.STALL: _SILENCE,
    Fault.TRICKLE: _SILENCE,
    Fault.SILENT: _SILENCE,
    Fault.RESTORE: PASSES,
    Fault.DELAY: PASSES,
    Fault.RESET: BROKEN_OFF,
    Fault.HALF_CLOSE: BROKEN_OFF,
    Fault.CLOSE_1011: at_once(Result(ConnectionLost, code=1011, ending=Ending.CLOSED_BY_PEER)),
    Fault.CLOSE_1008: at_once(Result(ConnectionLost, code=1008, ending=Ending.CLOSED_BY_PEER)),
}
# An idle connection of a pool; what is told is the next borrower's. The deadline is the
# heartbeat, which has had it replaced before.
IDLE = {
    Fault.NONE: Fate(Empty.WELL, CANCELLED, STOPPED, Empty.UNBOUNDED),
    Fault.LOSE: held(GOES_ON),
    Fault.STALL: held(GOES_ON),
    Fault.TRICKLE: held(GOES_ON),
    Fault.SILENT: held(GOES_ON),
    Fault.RESTORE: PASSES,
    Fault.DELAY: PASSES,
    Fault.RESET: at_once(GOES_ON),
    Fault.HALF_CLOSE: at_once(GOES_ON),
    Fault.CLOSE_1011: at_once(GOES_ON),
    Fault.CLOSE_1008: at_once(GOES_ON),
}


# The writer is blocked before the fault strikes. Its deadline is the caller's own.
def _blocked(ending: Ending) -> Fate:
    return Fate(
        Empty.UNENDING,
        replace(CANCELLED, ending=ending),
        Result(ConnectionError, ending=ending),
        Result(TimeoutError, ending=ending),
    )


_BLOCKED = _blocked(Ending.ABORTED)
# A FIN alone does not free it: a peer that has no more to say may still read. Since 3.12.8 and
# 3.13.1 asyncio says of a TLS transport, as of a plain one, that it is closing then.
_TELLS_OF_FIN = sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13)
_BLOCKED_AFTER_FIN = _blocked(Ending.LOST if _TELLS_OF_FIN else Ending.ABORTED)
WRITING = {
    Fault.LOSE: _BLOCKED,
    Fault.STALL: _BLOCKED,
    Fault.TRICKLE: _BLOCKED,
    Fault.RESET: at_once(Result(ConnectionError)),
    Fault.HALF_CLOSE: _BLOCKED_AFTER_FIN,
}
_HELD_UP = Fate(
    Empty.UNENDING,
    replace(CANCELLED, ending=Ending.ABORTED),
    Result(ending=Ending.ABORTED),
    Result(ending=Ending.ABORTED),
)
CLOSING = {
    Fault.LOSE: _HELD_UP,
    Fault.STALL: _HELD_UP,
    Fault.TRICKLE: _HELD_UP,
    Fault.SILENT: _HELD_UP,
    Fault.IGNORE_CLOSE: _HELD_UP,
    Fault.RESTORE: replace(PASSES, nothing=Result(ending=Ending.CLOSED_HERE)),
    Fault.DELAY: replace(PASSES, nothing=Result(ending=Ending.CLOSED_HERE)),
    Fault.RESET: at_once(Result(ending=Ending.LOST)),
    Fault.HALF_CLOSE: at_once(Result(ending=Ending.LOST)),
}

FATES: dict[Place, dict[Fault, Fate]] = {
    Place.WAITING: WAITING,
    Place.DIAL: DIAL,
    Place.TLS: TLS,
    Place.TOKEN: TOKEN,
    Place.HANDSHAKE: HANDSHAKE,
    Place.ON_OPEN: ON_OPEN,
    Place.IDLE: IDLE,
    Place.READING: READING,
    Place.WRITING: WRITING,
    Place.CLOSING: CLOSING,
}

_OPEN = (Place.IDLE, Place.READING, Place.WRITING, Place.CLOSING)
_ANSWERS = (
    Fault.REJECT,
    Fault.UNAVAILABLE,
    Fault.REDIRECT,
    Fault.GARBAGE,
    Fault.BAD_ACCEPT,
    Fault.UNASKED,
    Fault.NOT_WEBSOCKET,
)
_OF_A_WEBSOCKET = (Fault.CLOSE_1011, Fault.CLOSE_1008, Fault.SILENT)


def impossible(place: Place, fault: Fault) -> Empty | None:
    """Why ``fault`` cannot strike in ``place``; None where ``FATES`` says what comes of it."""
    if fault in FATES[place]:
        return None
    return next((reason for at, of, reason in _IMPOSSIBLE if place in at and fault in of), None)


_IMPOSSIBLE: list[tuple[tuple[Place, ...], tuple[Fault, ...], Empty]] = [
    (tuple(Place), _ANSWERS, Empty.ANSWERED),
    (tuple(Place), (Fault.REFUSE,), Empty.LINE_DOWN),
    (tuple(Place), (Fault.IGNORE_CLOSE,), Empty.CLOSE_ONLY),
    (tuple(set(Place) - {*_OPEN, Place.ON_OPEN}), _OF_A_WEBSOCKET, Empty.OPEN_ONLY),
    ((Place.WRITING,), (Fault.CLOSE_1011, Fault.CLOSE_1008), Empty.NO_ANSWER),
    ((Place.WRITING,), (Fault.SILENT,), Empty.STILL_READ),
    ((Place.WRITING,), (Fault.RESTORE, Fault.DELAY), Empty.RESUMES),
    ((Place.CLOSING,), (Fault.CLOSE_1011, Fault.CLOSE_1008), Empty.PEER_CLOSES),
    ((Place.DIAL,), (Fault.RESTORE,), Empty.SYN),
    ((Place.DIAL,), (Fault.STALL, Fault.TRICKLE, Fault.DELAY), Empty.NOT_ACCEPTED),
    ((Place.DIAL,), (Fault.HALF_CLOSE,), Empty.AT_TLS),
    (tuple(Place), (Fault.NONE,), Empty.NEVER_HELD),
]
