"""Whatever happens in whatever order, the pool keeps its books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from helpers.pooling import Site, open_site
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_conn import AttributionLevel, AttributionUnavailable, ConnectionPool
from agent_conn.gateway import CloseWith, DropAfter, Fault, Reject

MAX_SIZE = 3
MAX_AGE = 1000.0
MAX_IDLE = 500.0
FAULTS: list[Fault] = [DropAfter(), DropAfter(reset=True), CloseWith(1001)]


class Failed(Exception):
    """A borrower's own."""


class Borrower:
    """Borrows once, and holds what it has until it is told how to leave."""

    def __init__(self, pool: ConnectionPool, minimum: AttributionLevel) -> None:
        self.minimum = minimum
        self.has_it = False
        self.leave = asyncio.Event()
        self.fails = False
        self.task = asyncio.create_task(self.run(pool), name="borrower")

    async def run(self, pool: ConnectionPool) -> None:
        async with pool.acquire(min_attribution=self.minimum, timeout=None) as connection:
            assert connection.attribution >= self.minimum
            self.has_it = True
            await self.leave.wait()
            if self.fails:
                raise Failed


class PoolMachine(RuleBasedStateMachine):
    """Drives a pool against a real gateway; the rules are what may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.borrowers: list[Borrower] = []
        self.ahead = 0.0
        self.stack = AsyncExitStack()
        self.run(self.start())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.runner.run(work)

    async def start(self) -> None:
        self.site: Site = await self.stack.enter_async_context(open_site())
        self.pool = self.site.pool(
            max_size=MAX_SIZE,
            max_age=MAX_AGE,
            max_idle=MAX_IDLE,
            rotate=0.01,
            clock=lambda: time.monotonic() + self.ahead,
            jitter=lambda: 0.001,
        )

    @rule(minimum=st.sampled_from([AttributionLevel.NONE, AttributionLevel.AGENT]))
    def acquire(self, minimum: AttributionLevel) -> None:
        async def step() -> None:
            self.borrowers.append(Borrower(self.pool, minimum))
            await asyncio.sleep(0)

        self.run(step())

    @precondition(lambda self: self.holding())
    @rule(which=st.integers(0, 9), fails=st.booleans())
    def give_back(self, which: int, fails: bool) -> None:
        holding = self.holding()
        borrower = holding[which % len(holding)]
        borrower.fails = fails

        async def step() -> None:
            borrower.leave.set()
            await asyncio.wait({borrower.task})

        self.run(step())

    @precondition(lambda self: self.borrowers)
    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        borrower = self.borrowers[which % len(self.borrowers)]

        async def step() -> None:
            borrower.task.cancel()
            await asyncio.wait({borrower.task})

        self.run(step())

    @rule(count=st.integers(1, MAX_SIZE))
    def prewarm(self, count: int) -> None:
        self.call(lambda: self.pool.prewarm(count))

    @rule()
    def invalidate(self) -> None:
        self.call(self.pool.invalidate)

    @rule()
    def room_arrives(self) -> None:
        self.site.room.connected.set()

    @rule(seconds=st.sampled_from([MAX_IDLE, MAX_AGE]))
    def time_passes(self, seconds: float) -> None:
        self.ahead += seconds

    @rule(fault=st.sampled_from(FAULTS), which=st.integers(0, 9))
    def peer_goes_away(self, fault: Fault, which: int) -> None:
        def strike() -> None:
            if connections := self.site.gateway.connections:
                connections[which % len(connections)].inject(fault)

        self.call(strike)

    @rule()
    def next_dial_is_rejected(self) -> None:
        self.site.gateway.inject(Reject(503))

    @rule(turns=st.integers(1, 30))
    def turn(self, turns: int) -> None:
        async def step() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
                self.check_size()

        self.run(step())

    @rule()
    def quiet_down(self) -> None:
        self.run(self.settle())

    @invariant()
    def never_over_max_size(self) -> None:
        self.check_size()

    def teardown(self) -> None:
        async def end() -> None:
            await self.settle()
            await self.pool.aclose(grace=0.0)
            for borrower in self.borrowers:
                borrower.leave.set()
            if self.borrowers:
                await asyncio.wait({borrower.task for borrower in self.borrowers})
            self.check_outcomes()
            assert self.pool.statistics().size == 0
            await self.site.gateway.wait_idle(2.0)
            await self.stack.aclose()
            assert {task.get_name() for task in asyncio.all_tasks()} == {
                task.get_name() for task in [asyncio.current_task()] if task
            }

        self.run(end())
        self.runner.close()

    def call(self, work: Callable[[], object]) -> None:
        async def step() -> None:
            work()
            await asyncio.sleep(0)

        self.run(step())

    def holding(self) -> list[Borrower]:
        return [each for each in self.borrowers if each.has_it and not each.task.done()]

    def check_size(self) -> None:
        assert self.site.gateway.open_sockets <= MAX_SIZE
        assert self.pool.statistics().size <= MAX_SIZE

    def check_outcomes(self) -> None:
        for borrower in self.borrowers:
            if borrower.task.done() and not borrower.task.cancelled():
                error = borrower.task.exception()
                if isinstance(error, AssertionError):
                    raise error
                assert borrower.has_it or error is not None
                if isinstance(error, AttributionUnavailable):
                    assert borrower.minimum is AttributionLevel.AGENT

    async def settle(self) -> None:
        """Until nothing is under way: then the books are those of the gateway."""
        async with asyncio.timeout(5):
            while not self.is_settled():
                self.check_size()
                await asyncio.sleep(0)

    def is_settled(self) -> bool:
        figures = self.pool.statistics()
        if figures.dialing or figures.closing:
            return False
        # Lent ones whose peer went away are the borrower's to return.
        lost = len(self.holding()) - figures.in_use
        waiting = [each for each in self.borrowers if not each.has_it and not each.task.done()]
        served = not waiting or figures.in_use == MAX_SIZE
        dead = figures.size - self.site.gateway.open_sockets
        return served and lost == 0 and 0 <= dead <= figures.in_use


PoolMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestPool = PoolMachine.TestCase
