"""Whatever happens to loops, in whatever order: the gateway's sockets are those they own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import aiohttp
import pytest
from helpers.support import Room
from helpers.virtual_time import VirtualLoop, elapse
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_conn import (
    AgentConnError,
    ConnectionState,
    InferenceConnection,
    Reconnector,
    RetryPolicy,
    UpgradePolicy,
    reconnect,
)
from agent_conn.gateway import (
    AcceptAndClose,
    CloseWith,
    DropAfter,
    DropHandshake,
    Gateway,
    GoSilent,
    Reject,
    Reset,
    StallInHandshake,
)

pytestmark = pytest.mark.timeout(240)

MOST_LOOPS = 3
NO_THREADS = 0.0005
"""Real seconds to listen before time jumps; everything here is in one thread."""


class Pump:
    """One loop and the task that iterates it."""

    def __init__(self, loop: Reconnector) -> None:
        self.loop = loop
        self.turn = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="pump")

    async def _run(self) -> None:
        async for connection in self.loop:
            self.turn.clear()
            reading = asyncio.create_task(self._read(connection.ws), name="reader")
            turning = asyncio.create_task(self.turn.wait(), name="turn")
            try:
                await asyncio.wait({reading, turning}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                reading.cancel()
                turning.cancel()

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in ws:
            pass


class Sockets(RuleBasedStateMachine):
    """Dial, drop, reject, room arrives, upgrade, cancel, close, and time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.events = VirtualLoop(NO_THREADS)
        self.reports: list[Any] = []
        self.events.set_exception_handler(lambda _, report: self.reports.append(report))
        self.pumps: list[Pump] = []
        self.asked: set[asyncio.Task[Any]] = set()
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.events.run_until_complete(work)

    async def _open(self) -> None:
        self.room = Room()
        # A pre-dial waits for its room in silence.
        self.gateway = Gateway(request_timeout=None)
        await self.gateway.start()
        self.session = aiohttp.ClientSession()

    def ask(self, work: Coroutine[Any, Any, Any]) -> None:
        async def start() -> None:
            task = asyncio.create_task(work, name="asked")
            self.asked.add(task)
            task.add_done_callback(self.asked.discard)

        self.run(start())

    @precondition(lambda self: len(self.pumps) < MOST_LOOPS)
    @rule(waits=st.sampled_from([0.0, 2.0, None]), by_itself=st.booleans(), drains=st.booleans())
    def dial(self, waits: float | None, by_itself: bool, drains: bool) -> None:
        async def drain(_: InferenceConnection) -> None:
            await elapse(3.0)

        factory = partial(
            InferenceConnection,
            self.session,
            self.gateway.url("/v1/echo"),
            identity=self.room.identity,
            room_connected=self.room.connected,
            connect_wait=waits,
            open_timeout=3.0,
        )
        upgrade = UpgradePolicy(
            room_connected=self.room.connected if by_itself else None,
            drain=drain if drains else None,
            drain_timeout=2.0,
        )

        async def start() -> None:
            self.pumps.append(
                Pump(reconnect(factory, retry=RetryPolicy(attempts=4), upgrade=upgrade))
            )

        self.run(start())

    @rule(
        which=st.integers(0, 5),
        fault=st.sampled_from(
            [Reset(), CloseWith(1011), CloseWith(1008), CloseWith(1000), DropAfter(), GoSilent()]
        ),
    )
    def drop(self, which: int, fault: Reset) -> None:
        async def strike() -> None:
            if connections := self.gateway.connections:
                connections[which % len(connections)].inject(fault)

        self.run(strike())

    @rule(
        fault=st.sampled_from(
            [
                Reject(503),
                Reject(429, {"Retry-After": "2"}),
                Reject(401),
                DropHandshake(),
                StallInHandshake(),
                AcceptAndClose(),
            ]
        ),
        times=st.integers(1, 3),
    )
    def reject(self, fault: Reject, times: int) -> None:
        self.gateway.inject(fault, times)

    @rule()
    def room_arrives(self) -> None:
        self.room.connected.set()

    @precondition(lambda self: self.pumps)
    @rule(which=st.integers(0, MOST_LOOPS - 1))
    def upgrade(self, which: int) -> None:
        self.ask(self._of(which).loop.upgrade())

    @precondition(lambda self: self.pumps)
    @rule(which=st.integers(0, MOST_LOOPS - 1))
    def end_turn(self, which: int) -> None:
        self._of(which).turn.set()

    @precondition(lambda self: self.pumps)
    @rule(which=st.integers(0, MOST_LOOPS - 1), times=st.integers(1, 3), turns=st.integers(0, 12))
    def cancel(self, which: int, times: int, turns: int) -> None:
        async def cancel() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            for _ in range(times):
                self._of(which).task.cancel()
                await asyncio.sleep(0)

        self.run(cancel())

    @precondition(lambda self: self.pumps)
    @rule(which=st.integers(0, MOST_LOOPS - 1))
    def close(self, which: int) -> None:
        self.ask(self._of(which).loop.aclose())

    @precondition(lambda self: self.pumps)
    @rule(which=st.integers(0, MOST_LOOPS - 1))
    def wake(self, which: int) -> None:
        self._of(which).loop.wake()

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(elapse(seconds))

    @invariant()
    def the_sockets_are_those_that_are_owned(self) -> None:
        self.run(self.events.settle())
        owned = [one for pump in self.pumps for one in pump.loop.connections]
        begun = [one for one in owned if one.state is not ConnectionState.IDLE]
        assert self.gateway.open_sockets == len(begun)
        for pump in [pump for pump in self.pumps if pump.task.done()]:
            if not pump.task.cancelled():
                assert isinstance(pump.task.exception(), AgentConnError | None)
            if not pump.loop.connections:
                self.pumps.remove(pump)

    def teardown(self) -> None:
        self.run(self._shut())
        left = asyncio.all_tasks(self.events)
        self.events.close()
        assert not left
        assert self.reports == []

    async def _shut(self) -> None:
        for pump in self.pumps:
            await pump.loop.aclose()
        await asyncio.gather(*(pump.task for pump in self.pumps), return_exceptions=True)
        await self.gateway.wait_idle()
        await self.session.close()
        await self.gateway.aclose()
        await self.events.settle()

    def _of(self, which: int) -> Pump:
        return self.pumps[which % len(self.pumps)]


TestSockets = Sockets.TestCase
TestSockets.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
