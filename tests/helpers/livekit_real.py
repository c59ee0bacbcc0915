"""Real calls: a worker of a real LiveKit server, its callers, and a line that holds it up."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import pytest
from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.agents import __version__ as livekit_version
from livekit_local_server import LiveKitServer, find_server

from agent_conn.gateway import Gateway
from agent_conn.integrations.livekit import JobAttribution, attribute_job
from helpers.livekit_jobs import PLAN

T = TypeVar("T")

REQUIRED = os.environ.get("AGENT_CONN_REQUIRE_LIVEKIT") == "1"
needs_server = pytest.mark.skipif(
    find_server() is None and not REQUIRED, reason="no LiveKit server on this machine"
)

THREAD, PROCESS = JobExecutorType.THREAD, JobExecutorType.PROCESS
EXECUTORS = [THREAD, PROCESS]
if tuple(map(int, livekit_version.split(".")[:3])) < (1, 8, 5):
    # There an agent's job of a thread may not end when its worker is told to.
    EXECUTORS.remove(THREAD)

on_a_real_server = [
    needs_server,
    pytest.mark.timeout(120),
    # LiveKit's classes leave a websocket to the collector where they are cancelled as it opens.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]
"""The marks of tests that call a real server."""

GATEWAY_CREDENTIALS: dict[str, Any] = {
    "api_key": "inference",
    "api_secret": "a secret that is long enough, really",
}


def set_environment(
    patch: pytest.MonkeyPatch, url: str, server: LiveKitServer, gateway: Gateway
) -> None:
    """What LiveKit's own classes find in the environment of a job, processes included."""
    patch.setenv("LIVEKIT_DEV_MODE", "1")
    for name, value in server.environment().items():
        patch.setenv(name, value)
    patch.setenv("LIVEKIT_URL", url)
    patch.setenv("LIVEKIT_INFERENCE_URL", gateway.base_url)
    patch.setenv("LIVEKIT_INFERENCE_API_KEY", GATEWAY_CREDENTIALS["api_key"])
    patch.setenv("LIVEKIT_INFERENCE_API_SECRET", GATEWAY_CREDENTIALS["api_secret"])


@dataclass
class World:
    """A LiveKit server, a line to it, and a gateway; the environment's LiveKit leads to them."""

    server: LiveKitServer
    gateway: Gateway
    line: Line
    patch: pytest.MonkeyPatch

    def plan(self, **plan: Any) -> None:
        """Tell the jobs of `livekit_jobs` what to do."""
        self.patch.setenv(PLAN, json.dumps(plan))


@asynccontextmanager
async def open_world(patch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[World]:
    """A world whose gateway is made with ``options``."""
    async with (
        LiveKitServer() as server,
        Gateway(**GATEWAY_CREDENTIALS, **options) as gateway,
        Line(server) as line,
    ):
        set_environment(patch, line.url, server, gateway)
        yield World(server, gateway, line, patch)


@asynccontextmanager
async def worker(
    entrypoint: Callable[..., Awaitable[None]],
    executor: JobExecutorType = EXECUTORS[0],
    idle: int = 1,
) -> AsyncIterator[AgentServer]:
    """A worker that is registered with the server of the environment."""
    server = AgentServer(
        job_executor_type=executor,
        num_idle_processes=idle,
        # On a busy machine its load is 1 otherwise, and the server then gives it no call.
        load_fnc=lambda: 0.0,
        # A forkserver would keep the environment of the first test.
        multiprocessing_context="spawn",
        host="127.0.0.1",
        port=0,
        shutdown_process_timeout=10.0,
        # On a busy machine a process takes longer than the default of 10 s to import all it needs.
        initialize_process_timeout=40.0,
    )
    server.rtc_session(entrypoint)
    registered = asyncio.Event()
    server.on("worker_registered", lambda *_: registered.set())
    running = asyncio.create_task(server.run(devmode=True), name="worker")
    try:
        async with asyncio.timeout(40):
            await registered.wait()
        yield server
    finally:
        await server.aclose()
        await running


class Caller:
    """Someone in a room, for whom LiveKit dispatches an agent."""

    def __init__(self, server: LiveKitServer, room: str) -> None:
        self.room = rtc.Room()
        self._server = server
        self._name = room

    async def __aenter__(self) -> Self:
        await self.room.connect(self._server.url, self._server.token("caller", self._name))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.room.disconnect()

    async def agent(self) -> rtc.RemoteParticipant:
        """The agent, once it has joined."""
        joined: asyncio.Future[rtc.RemoteParticipant] = asyncio.get_running_loop().create_future()

        def on_joined(participant: rtc.RemoteParticipant) -> None:
            if not joined.done():
                joined.set_result(participant)

        self.room.on("participant_connected", on_joined)
        try:
            for participant in self.room.remote_participants.values():
                on_joined(participant)
            async with asyncio.timeout(30):
                return await joined
        finally:
            self.room.off("participant_connected", on_joined)


class RunningJob:
    """A job of a thread, into whose loop and context a test can reach."""

    def __init__(self, ctx: JobContext, attribution: JobAttribution | None = None) -> None:
        self.ctx = ctx
        self.attribution = attribution
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``call`` gives in the job's own loop and context."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        async def tell() -> None:
            try:
                done.set_result(await call())
            except BaseException as error:
                done.set_exception(error)

        def begin() -> None:
            tasks.append(asyncio.create_task(tell(), name="reached_into"))

        tasks: list[asyncio.Task[None]] = []
        self._loop.call_soon_threadsafe(begin, context=self._context)
        async with asyncio.timeout(20):
            return await asyncio.wrap_future(done)


class Jobs:
    """Jobs of threads, as they start and end. `entrypoint` is a worker's.

    Args:
        at_shutdown: what each job's shutdown callback awaits.
    """

    def __init__(self, at_shutdown: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._at_shutdown = at_shutdown
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Queue[RunningJob] = asyncio.Queue()
        self._ended: asyncio.Queue[Any] = asyncio.Queue()

    async def entrypoint(self, ctx: JobContext) -> None:
        attribution = attribute_job(ctx)
        ctx.add_shutdown_callback(self._shut_down)
        await ctx.connect()
        self._tell(self._started, RunningJob(ctx, attribution))

    async def started(self) -> RunningJob:
        """The next that has connected to its room."""
        async with asyncio.timeout(30):
            return await self._started.get()

    async def ended(self) -> Any:
        """What the next shutdown callback gave, or raised."""
        async with asyncio.timeout(30):
            return await self._ended.get()

    async def _shut_down(self) -> None:
        try:
            self._tell(self._ended, await self._at_shutdown())
        except Exception as error:
            self._tell(self._ended, error)

    def _tell(self, queue: asyncio.Queue[Any], item: object) -> None:
        self._loop.call_soon_threadsafe(queue.put_nowait, item)


class Line:
    """A TCP line to a LiveKit server, which can hold up whoever joins a room over it."""

    def __init__(self, server: LiveKitServer) -> None:
        self.joining = asyncio.Event()
        """Somebody has asked to join."""
        self._server = server
        self._open = asyncio.Event()
        self._open.set()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._listener is not None
        return f"ws://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def hold(self) -> None:
        """Let nobody join a room any more."""
        self._open.clear()

    def release(self) -> None:
        """Let them join."""
        self._open.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer), name="line")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /rtc"):
                self.joining.set()
                await self._open.wait()
            there, back = await asyncio.open_connection(self._server.host, self._server.port)
            try:
                back.write(head)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pipe(reader, back))
                    group.create_task(_pipe(there, writer))
            finally:
                back.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def told(gateway: Gateway) -> list[tuple[str, str]]:
    """Path and level of each request but `/v1/models`, which LiveKit sends without ids."""
    return [
        (each.path.removeprefix("/v1/"), each.level.name)
        for each in gateway.handshakes
        if each.path != "/v1/models"
    ]
