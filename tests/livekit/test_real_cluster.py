"""Two LiveKit servers joined by Redis, and two workers on machines of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_real import GATEWAY_CREDENTIALS, REQUIRED, Caller, needs_server
from helpers.netns import Namespace, needs_namespaces
from livekit_local_server import LiveKitServer, free_port

from agent_conn.gateway import Gateway

pytestmark = [
    needs_server,
    needs_namespaces,
    pytest.mark.skipif(
        shutil.which("redis-server") is None and not REQUIRED, reason="no redis-server"
    ),
    pytest.mark.timeout(150),
]

IDLE_LOADS = 7
"""Loads of a worker in a row, of which it makes two a second."""
WORKER = Path(__file__).parents[1] / "helpers/livekit_worker.py"


@asynccontextmanager
async def running_redis() -> AsyncIterator[str]:
    """The address of a Redis of the test's own, which keeps nothing on disk."""
    port = free_port(socket.SOCK_STREAM)
    process = await asyncio.create_subprocess_exec(
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port)),
        *("--save", "", "--appendonly", "no"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while b"eady to accept" not in await process.stdout.readline():
                assert process.returncode is None
        yield f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


class Worker:
    """A worker in a namespace, and the calls that it said it serves."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.serves: set[str] = set()
        self._idle = 0
        self._process = process
        self._changed = asyncio.Condition()
        self._registered = False
        self._reading = asyncio.create_task(self._read(), name="worker_output")

    async def registered(self) -> None:
        await self._until(lambda: self._registered)

    async def free(self) -> None:
        """Return once all its calls have ended and its server knows, which it tells in 2.5 s."""
        self._idle = 0
        await self._until(lambda: self._idle == IDLE_LOADS)

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._reading
        await self._process.wait()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(40), self._changed:
            await self._changed.wait_for(condition)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            word, _, told = line.strip().partition(" ")
            async with self._changed:
                self._registered = self._registered or word == "registered"
                if word == "serves":
                    self.serves.add(told)
                elif word == "busy":
                    self._idle = self._idle + 1 if told == "0" else 0
                self._changed.notify_all()


@asynccontextmanager
async def running_worker(
    namespace: Namespace, server: LiveKitServer, gateway: Gateway
) -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        *(*namespace.prefix, sys.executable, str(WORKER)),
        env={
            **os.environ,
            **server.environment(),
            "LIVEKIT_INFERENCE_URL": gateway.base_url,
            "LIVEKIT_INFERENCE_API_KEY": GATEWAY_CREDENTIALS["api_key"],
            "LIVEKIT_INFERENCE_API_SECRET": GATEWAY_CREDENTIALS["api_secret"],
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    worker = Worker(process)
    try:
        await worker.registered()
        yield worker
    finally:
        await worker.kill()


async def test_calls_on_two_machines_name_their_agents_also_after_one_was_lost() -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        redis = await enter(running_redis())
        machines = [await enter(Namespace(number)) for number in range(2)]
        first = await enter(LiveKitServer(host=machines[0].here, redis=redis))
        keys = (first.key, first.secret)
        second = await enter(LiveKitServer(host=machines[1].here, redis=redis, credentials=keys))
        servers = [first, second]
        gateway = await enter(Gateway(host=machines[0].here, **GATEWAY_CREDENTIALS))
        workers = [
            await enter(running_worker(machine, server, gateway))
            for machine, server in zip(machines, servers, strict=True)
        ]
        agents: set[tuple[str, str]] = set()
        async with calls("early", servers, agents):
            assert [len(worker.serves) for worker in workers] == [2, 2]
        for worker in workers:
            await worker.free()
        async with calls("later", servers, agents):
            assert [len(worker.serves) for worker in workers] == [4, 4]
            await workers[0].kill()
        await workers[1].free()
        async with calls("last", servers, agents, count=2):
            assert [len(worker.serves) for worker in workers] == [4, 6]
        await gateway.wait_until(lambda: len(gateway.handshakes) == 20)
        sent = [handshake.identity for handshake in gateway.handshakes]
    assert {handshake.level.name for handshake in gateway.handshakes} == {"AGENT"}
    assert {(each.room_id, each.agent_id) for each in sent} == agents
    assert {each.job_id for each in sent} == workers[0].serves | workers[1].serves
    assert len(agents) == 10


@asynccontextmanager
async def calls(
    name: str, servers: list[LiveKitServer], agents: set[tuple[str, str]], count: int = 4
) -> AsyncIterator[None]:
    """Callers at one server and the other, each with an agent, whose ids go into ``agents``."""
    async with AsyncExitStack() as stack:
        for number in range(count):
            server = servers[number % len(servers)]
            caller = await stack.enter_async_context(Caller(server, f"{name}-{number}"))
            agents.add((await caller.room.sid, (await caller.agent()).sid))
        yield
