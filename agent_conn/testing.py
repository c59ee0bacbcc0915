"""What a test of a voice agent needs: a gateway in a thread of its own, and an identity source.

pytest has both as fixtures: `inference_gateway` (an `InferenceGateway`), `agent_room_connected` (an
`asyncio.Event` that the test sets), `agent_identity` (a `RoomIdentity`) and
`inference_environment`, by which LiveKit's own clients dial the gateway.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from agent_conn._identity import AgentIdentity, AttributionLevel
from agent_conn._options import check_seconds
from agent_conn._room import RoomConnected
from agent_conn._usage import Usage
from agent_conn.errors import StateError
from agent_conn.gateway import Connection, Fault, Gateway, Handshake, SpeechEngine

__all__ = ["InferenceGateway", "RoomIdentity"]

ANSWER_SECONDS = 5.0
STACK_FRAMES = 3

T = TypeVar("T")


class InferenceGateway:
    """Runs a gateway in a thread of its own, inside a `with`; single use.

    So it serves a test of any kind: an async one, whatever runs its event loop, and a plain
    one that calls `asyncio.run`. `gateway` is one that was not started, by default
    ``Gateway()`` with its scripted engine. It is given `stop_timeout` seconds to end.

    Synchronous methods block until the gateway's thread is idle, so their answers are settled.
    Where that thread does not answer within 5 seconds, because an engine blocks it, they raise
    TimeoutError, which says where it is.

    Raises:
        ConfigurationError: `stop_timeout` is not positive.
    """

    def __init__(self, gateway: Gateway | None = None, *, stop_timeout: float = 5.0) -> None:
        check_seconds("stop_timeout", stop_timeout)
        self._gateway = gateway if gateway is not None else Gateway()
        self._stop_timeout = stop_timeout
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._ended: Future[None] = Future()
        # A daemon: one that is stuck is reported, and does not keep the interpreter from exiting.
        self._thread = threading.Thread(target=self._run, name="inference-gateway", daemon=True)

    def __enter__(self) -> Self:
        """Start the gateway.

        Raises:
            StateError: it was started before.
            ImportError: the gateway needs a package that is not installed.
            OSError: the address cannot be bound.
        """
        if self._thread.ident is not None:
            raise StateError("an InferenceGateway starts once; make a new one")
        self._thread.start()
        first: list[Future[Any]] = [self._started, self._ended]
        wait(first, ANSWER_SECONDS, FIRST_COMPLETED)
        if self._ended.done():
            self._ended.result()
        if not self._started.done():
            raise TimeoutError(f"the gateway did not start; {self._whereabouts()}")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection and stop.

        Raises:
            TimeoutError: it did not stop within `stop_timeout`; the text says where it is.
        """
        loop, stop = self._started.result(0)
        loop.call_soon_threadsafe(stop.set)
        if not wait({self._ended}, self._stop_timeout).done:
            text = f"the gateway did not stop in {self._stop_timeout:g} s; {self._whereabouts()}"
            raise TimeoutError(text)
        self._thread.join()
        self._ended.result()

    def __repr__(self) -> str:
        return f"<InferenceGateway of {self._gateway!r}>"

    @property
    def base_url(self) -> str:
        """The `base_url` for LiveKit's clients: ``http(s)://host:port/v1``."""
        return self._gateway.base_url

    def url(self, path: str = "/v1/stt") -> str:
        """Return the websocket URL of `path`, which may have a query."""
        return self._gateway.url(path)

    @property
    def engine(self) -> SpeechEngine:
        """The speech engine. Setting another affects the sessions that begin after that.

        ``ScriptedEngine(["what time is it"], audio=pcm)`` hears and speaks just that.
        """
        return self._call(lambda: self._gateway.engine)

    @engine.setter
    def engine(self, engine: SpeechEngine) -> None:
        self._call(lambda: setattr(self._gateway, "engine", engine))

    @property
    def handshakes(self) -> list[Handshake]:
        """Every request so far, in the order they came, with its identity and level."""
        return self._call(lambda: self._gateway.handshakes)

    @property
    def usage(self) -> tuple[Usage, ...]:
        """What each caller has used of `/v1/stt` and `/v1/tts` so far, by the ids it sent."""
        return self._call(lambda: self._gateway.usage)

    @property
    def connections(self) -> list[Connection]:
        """The open websockets, in the order they were opened. Look at them, and change nothing.

        Only the gateway's thread may act on one: use `inject_now`.
        """
        return self._call(lambda: self._gateway.connections)

    @property
    def accepted(self) -> int:
        """How many TCP connections were accepted so far, those dialled ahead included."""
        return self._call(lambda: self._gateway.accepted)

    def inject(self, fault: Fault, times: int | None = 1) -> None:
        """Apply `fault` to the next `times` connections; None applies it until `withdraw_faults`.

        Raises:
            ConfigurationError: `fault` is not one of `FAULTS`, or `times` is below 1.
        """
        self._call(lambda: self._gateway.inject(fault, times))

    def inject_now(self, fault: Fault) -> int:
        """Apply `fault` to every open connection; return how many there are.

        Raises:
            ConfigurationError: `fault` makes no sense for an open connection.
        """
        return self._call(lambda: _strike_all(self._gateway, fault))

    def withdraw_faults(self) -> None:
        """Withdraw every fault. Connections that have met one keep it."""
        self._call(self._gateway.withdraw_faults)

    async def wait_until(self, predicate: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until `predicate()` is true.

        The gateway's thread calls it after every accept, request, opening, received message and
        close.

        Raises:
            TimeoutError: it is still false after `timeout` seconds.
            StateError: the gateway does not run.
        """
        await self._wait(timeout, lambda: self._gateway.wait_until(predicate, timeout))

    async def wait_idle(self, timeout: float = 5.0) -> None:
        """Wait until no socket is open.

        Raises:
            TimeoutError: some still are after `timeout` seconds; the text names them.
            StateError: the gateway does not run.
        """
        await self._wait(timeout, lambda: self._gateway.wait_idle(timeout))

    def assert_attributed(
        self, level: AttributionLevel = AttributionLevel.AGENT, *, path: str | None = None
    ) -> None:
        """Assert that there was a request, and that each was attributed to `level` or closer.

        `path`, such as ``/v1/tts``, leaves the requests of other paths out.

        Raises:
            AssertionError: it is not so; the text lists every request that was seen.
        """
        __tracebackhide__ = True
        seen = self.handshakes
        asked = [each for each in seen if path is None or each.path == path]
        if asked and all(each.level >= level for each in asked):
            return
        where = "" if path is None else f" to {path}"
        closer = "" if level is AttributionLevel.AGENT else " or closer"
        listed = "".join(f"\n  {_describe(each)}" for each in seen) or " none"
        if not asked:
            raise AssertionError(f"no request came{where}; seen:{listed}")
        raise AssertionError(
            f"not every request{where} was attributed {level.name}{closer}; seen:{listed}"
        )

    def _run(self) -> None:
        try:
            # Not the policy's loop, which may have no real sockets or no add_reader.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as failure:
            self._ended.set_exception(failure)
        else:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        stop = asyncio.Event()
        async with self._gateway:
            self._started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def _call(self, function: Callable[[], T]) -> T:
        # Once it has ended there is no other thread; a predicate is in that thread itself.
        if self._ended.done() or threading.current_thread() is self._thread:
            return function()

        async def call() -> T:
            return function()

        answer = self._submit(call)
        if not wait({answer}, ANSWER_SECONDS).done:
            answer.cancel()
            raise TimeoutError(f"the gateway does not answer; {self._whereabouts()}")
        return answer.result()

    async def _wait(self, timeout: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        deadline = asyncio.timeout(timeout + ANSWER_SECONDS)
        try:
            async with deadline:
                await asyncio.wrap_future(self._submit(work))
        except TimeoutError:
            if not deadline.expired():
                raise
            text = f"the gateway does not answer; {self._whereabouts()}"
            raise TimeoutError(text) from None

    def _submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        if not self._started.done() or self._ended.done():
            raise StateError("the gateway does not run: use it inside its with block")
        loop, _ = self._started.result()
        return asyncio.run_coroutine_threadsafe(work(), loop)

    def _whereabouts(self) -> str:
        # Documented, for all its name.
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        stack = traceback.format_stack(frame)[-STACK_FRAMES:] if frame else ["  nowhere\n"]
        return f"its thread is in\n{''.join(stack)}"


@dataclass
class RoomIdentity:
    """An identity source for tests: its agent id cannot be read before the room is connected.

    Give it as `identity=`. The ids may be set to others, or to None, at any time.
    """

    room_connected: RoomConnected
    job_id: str | None = "AJ_test"
    room_id: str | None = "RM_test"
    agent_id: str | None = "PA_test"

    def __call__(self) -> AgentIdentity:
        """Return the ids that can be read now."""
        return AgentIdentity.best_effort(
            job_id=self.job_id, room_id=self.room_id, agent_id=self.read_agent_id
        )

    def read_agent_id(self) -> str | None:
        """Return the agent's id.

        Raises:
            Exception: the room is not connected, as LiveKit's `local_participant` raises.
        """
        if not self.room_connected.is_set():
            raise Exception("cannot access local participant before connecting")  # noqa: TRY002
        return self.agent_id


def _strike_all(gateway: Gateway, fault: Fault) -> int:
    struck = gateway.connections
    for connection in struck:
        connection.inject(fault)
    return len(struck)


def _describe(handshake: Handshake) -> str:
    ids = handshake.identity
    listed = (("job", ids.job_id), ("room", ids.room_id), ("agent", ids.agent_id))
    told = ", ".join(f"{name} {value}" for name, value in listed if value is not None)
    status = "unanswered" if handshake.status is None else handshake.status
    return f"{handshake.path} {handshake.level.name} ({told or 'no id'}), status {status}"
