"""How long connections live, and what a loop with the defaults makes of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from helpers.staying_bench import Bench, converse, listen, now, on_the_bench
from helpers.virtual_time import elapse

from agent_conn import InferenceConnection, Reconnector, RetriesExhausted
from agent_conn.gateway import AcceptAndClose, CloseWith, Reject

pytestmark = pytest.mark.timeout(240)


@dataclass
class Call:
    """A loop whose connections speak, live for ``life`` seconds and are closed by the gateway."""

    bench: Bench
    loop: Reconnector
    life: float
    code: int = 1011
    opened_at: list[float] = field(default_factory=list)
    ended_at: list[float] = field(default_factory=list)

    async def run(self, until: float) -> None:
        await self.loop.run(lambda connection: self.pump(connection, until))

    async def pump(self, connection: InferenceConnection, until: float) -> bool | None:
        self.opened_at.append(now())
        await converse(connection)
        await elapse(self.life)
        if now() >= until:
            return True
        self.bench.gateway.connections[-1].inject(CloseWith(self.code))
        await listen(connection)
        self.ended_at.append(now())
        return None

    def gaps(self) -> list[float]:
        """Seconds from each end to the next connection."""
        return [after - end for end, after in zip(self.ended_at, self.opened_at[1:], strict=False)]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))]
)
@pytest.mark.parametrize("life", [0.0, 0.9])
def test_accepting_and_hanging_up_within_a_second_is_dialled_ever_slower_and_ends(
    life: float, seed: int
) -> None:
    async def scenario(bench: Bench) -> None:
        call = Call(bench, bench.loop(draw=random.Random(seed).random), life)
        with pytest.raises(RetriesExhausted):
            await call.run(until=3600.0)
        dialled = [shake.request_at for shake in bench.gateway.handshakes]
        first = [at for at in dialled if at - dialled[0] <= 30.0]
        assert 4 <= len(first) <= 12
        assert len(dialled) == 26

    on_the_bench(scenario)


def test_accepting_and_hanging_up_without_a_word_ends_after_25_redials() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(AcceptAndClose(1011), times=None)
        loop = bench.loop()
        with pytest.raises(RetriesExhausted, match="all 25 redials") as caught:
            await loop.run(listen)
        assert len(bench.gateway.handshakes) == 26
        assert len(caught.value.attempts) == 26
        assert loop.statistics.lost == 26

    on_the_bench(scenario)


def test_lives_of_a_second_and_a_half_end_within_two_minutes_of_it() -> None:
    async def scenario(bench: Bench) -> None:
        call = Call(bench, bench.loop(), life=1.5)
        with pytest.raises(RetriesExhausted):
            await call.run(until=3600.0)
        assert 60.0 < 1.5 * len(call.opened_at) <= 120.0
        assert max(call.gaps()) <= 0.1

    on_the_bench(scenario)


@pytest.mark.parametrize(
    ("life", "code", "outage_before"),
    [
        pytest.param(2.5, 1011, False, marks=pytest.mark.slow),
        pytest.param(8.0, 1011, False, marks=pytest.mark.slow),
        (8.0, 1011, True),
        (10.0, 1011, True),
        (60.0, 1000, False),
    ],
)
def test_longer_lives_go_on_for_an_hour_and_are_redialled_at_once(
    life: float, code: int, outage_before: bool
) -> None:
    async def scenario(bench: Bench) -> None:
        if outage_before:
            bench.gateway.inject(Reject(503), times=10)
        call = Call(bench, bench.loop(), life, code)
        await call.run(until=3600.0)
        assert now() >= 3600.0
        assert len(call.opened_at) >= 0.9 * 3600.0 / life
        assert max(call.gaps()) <= 0.1

    on_the_bench(scenario)


def test_a_connection_that_was_open_for_ten_seconds_leaves_the_budget_whole() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=4)
        loop = bench.loop()
        left = []

        async def pump(connection: InferenceConnection) -> bool | None:
            left.append(loop.statistics.redials_left)
            if len(left) == 2:
                return True
            await elapse(10.0)
            bench.gateway.connections[-1].inject(CloseWith(1011))
            await listen(connection)
            return None

        await loop.run(pump)
        assert left == [21, 24]

    on_the_bench(scenario)


def test_a_connection_that_ended_unseen_lived_no_longer_for_the_time_its_body_took() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(AcceptAndClose(1011), times=None)

        async def pump(connection: InferenceConnection) -> None:
            await listen(connection)
            await elapse(100.0)

        with pytest.raises(RetriesExhausted):
            await bench.loop().run(pump)
        assert len(bench.gateway.handshakes) == 26

    on_the_bench(scenario)


def test_a_body_that_does_nothing_cannot_dial_for_ever() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(RetriesExhausted):
            async for _ in bench.loop():
                pass
        assert len(bench.made) == 26

    on_the_bench(scenario)
