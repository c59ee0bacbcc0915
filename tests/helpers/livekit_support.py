"""LiveKit without its server: real rooms on a fake native side, real jobs, control of both."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import aiohttp
import jwt
from livekit import rtc
from livekit.agents import JobContext
from livekit.agents.testing import fake_job_context
from livekit.agents.utils import http_context

CREDENTIALS: dict[str, Any] = {
    "api_key": "key",
    "api_secret": "a secret that is long enough for HS256",
}

# Names of these modules that LiveKit's own code imports, and exports to nobody.
room_module: Any = importlib.import_module("livekit.rtc.room")
participant_module: Any = importlib.import_module("livekit.rtc.participant")
livekit_headers: Any = importlib.import_module("livekit.agents.inference.stt").get_inference_headers
mock_room: Any = importlib.import_module("livekit.agents.ipc.mock_room").create_mock_room
ffi = room_module.proto_ffi


@contextmanager
def fake_job(room: Any = None, job_id: str = "AJ_1") -> Iterator[JobContext]:
    """A real ``JobContext``, which is fake by its own account, around the code within."""
    with ExitStack() as stack:
        # Nothing would remove the directory that a context makes, outside a worker.
        with patch.object(tempfile, "TemporaryDirectory", _NoDirectory):
            ctx = stack.enter_context(fake_job_context(room=room, job_id=job_id))
        yield ctx


@contextmanager
def job(room: Any = None, job_id: str = "AJ_1") -> Iterator[JobContext]:
    """As ``fake_job``, by its own account of a worker."""
    with fake_job(room, job_id) as ctx, patch.object(ctx, "is_fake_job", lambda: False):
        yield ctx


class _NoDirectory:
    name = "/nowhere"


class NativeSide:
    """Answers what a room asks of livekit's native library, and sends what it would send.

    Rooms are real. A room connects when it asks to, or with ``hold`` once it is released. The
    participant's sid is ``PA_`` and the token, or the room's name in a token that is a JWT.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.instance = self
        self.queue = type(room_module.FfiClient.instance.queue)()
        self._hold = hold
        self._held: list[Any] = []
        self._numbers = itertools.count(1)
        self._handles: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def installed(self) -> Iterator[NativeSide]:
        with (
            patch.object(room_module, "FfiClient", self),
            patch.object(room_module, "FfiHandle", _Handle),
            patch.object(participant_module, "FfiHandle", _Handle),
        ):
            yield self

    def request(self, asked: Any) -> Any:
        answer, number = ffi.FfiResponse(), next(self._numbers)
        if asked.HasField("connect"):
            answer.connect.async_id = number
            event = self._connected(number, asked.connect.token)
            if self._hold:
                self._held.append(event)
            else:
                self._tell(event)
        elif asked.HasField("disconnect"):
            answer.disconnect.async_id = number
            self.disconnect(asked.disconnect.room_handle)
            self.queue.put(ffi.FfiEvent(disconnect={"async_id": number}))
        return answer

    def release(self) -> None:
        """Let the rooms connect that asked to."""
        self._hold = False
        held, self._held = self._held, []
        for event in held:
            self._tell(event)

    def refuse(self) -> None:
        """Let the connects that were asked for fail."""
        held, self._held = self._held, []
        for event in held:
            number = event.connect.async_id
            self.queue.put(ffi.FfiEvent(connect={"async_id": number, "error": "refused"}))

    def handle(self, name: str) -> int:
        return self._handles[name]

    def disconnect(self, handle: int) -> None:
        self._state(handle, rtc.ConnectionState.CONN_DISCONNECTED)
        self._room_event(handle, disconnected={"reason": 1})
        self._room_event(handle, eos={})

    def reconnect(self, handle: int, identity: str, sid: str) -> None:
        """A full reconnect, after which the participant has another sid."""
        self._state(handle, rtc.ConnectionState.CONN_RECONNECTING)
        self._room_event(handle, reconnecting={})
        info = {"identity": identity, "sid": sid}
        self._room_event(handle, participants_updated={"participants": [_participant(info)]})
        self._state(handle, rtc.ConnectionState.CONN_CONNECTED)
        self._room_event(handle, reconnected={})

    def _connected(self, number: int, token: str) -> Any:
        name = token
        if token.count(".") == 2:
            name = jwt.decode(token, options={"verify_signature": False})["video"]["room"]
        with self._lock:
            handle = self._handles[name] = next(self._numbers)
        event = ffi.FfiEvent()
        event.connect.async_id = number
        result = event.connect.result
        result.room.handle.id = handle
        result.room.info.sid = f"RM_{name}"
        result.room.info.name = name
        result.local_participant.handle.id = next(self._numbers)
        result.local_participant.info.CopyFrom(
            _participant({"identity": f"agent-{name}", "sid": f"PA_{name}"})
        )
        return event

    def _tell(self, event: Any) -> None:
        self.queue.put(event)
        self._state(event.connect.result.room.handle.id, rtc.ConnectionState.CONN_CONNECTED)

    def _state(self, handle: int, state: Any) -> None:
        self._room_event(handle, connection_state_changed={"state": state})

    def _room_event(self, handle: int, **event: Any) -> None:
        self.queue.put(ffi.FfiEvent(room_event={"room_handle": handle, **event}))


@dataclass
class Running:
    """A job whose room has asked to connect, and connects when ``native`` lets it."""

    ctx: JobContext
    native: NativeSide
    session: aiohttp.ClientSession

    async def connect(self) -> None:
        changed = asyncio.Event()
        self.ctx.room.once("connection_state_changed", lambda _: changed.set())
        self.native.release()
        async with asyncio.timeout(5):
            await changed.wait()


@asynccontextmanager
async def running_job(make: Callable[..., Any] = job) -> AsyncIterator[Running]:
    native, room = NativeSide(hold=True), rtc.Room()
    with native.installed():
        connecting = asyncio.create_task(room.connect("ws://unused", "one"))
        await asyncio.sleep(0)
        with make(room) as ctx:
            async with http_context.open() as session:
                yield Running(ctx, native, session)
        native.release()
        await connecting
        await room.disconnect()


def _participant(info: dict[str, str]) -> Any:
    made = room_module.proto_participant.ParticipantInfo(**info)
    for name, field in made.DESCRIPTOR.fields_by_name.items():
        # The library's messages are of proto2, whose required fields have to be there.
        if field.is_required and not made.HasField(name):
            setattr(made, name, field.default_value)
    return made


class _Handle:
    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.disposed = False

    def dispose(self) -> None:
        self.disposed = True
