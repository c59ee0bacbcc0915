"""Fifty streams of one process lose their gateway at once: what they share of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import mean

import aiohttp
import pytest
from helpers.staying_bench import Bench, now, on_the_bench
from helpers.virtual_time import GRACE, elapse, in_virtual_time, settle, until_idle

from agent_conn import (
    InferenceConnection,
    Reconnector,
    ReconnectState,
    RetryPolicy,
    reconnect,
)
from agent_conn.gateway import Gateway, Reject

pytestmark = pytest.mark.timeout(240)

STREAMS = 50


@dataclass
class Outage:
    """What an outage was like for the streams. Times count from its end."""

    dials: list[int]
    back: list[float]
    probes: list[float]
    """When each dial during the outage began, after the first of each stream."""


async def live_through(seconds: float, *, share: bool, seed: int) -> Outage:
    dice = random.Random(seed)
    lost_at, probes, back = 0.0, [], {}

    def dial(number: int) -> InferenceConnection:
        if lost_at:
            probes.append(now() - lost_at)
        return InferenceConnection(session, before.url("/v1/echo"))

    async def follow(number: int, loop: Reconnector) -> None:
        async for connection in loop:
            if lost_at:
                back[number] = now() - lost_at - seconds
            async for _ in connection.ws:
                pass

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        before = Gateway()
        await before.start()
        policy = RetryPolicy(share_health=share)
        loops = [
            reconnect(partial(dial, number), retry=policy, random=dice.random)
            for number in range(STREAMS)
        ]
        following = [asyncio.create_task(follow(*one)) for one in enumerate(loops)]
        await settle()
        assert before.open_sockets == STREAMS
        await elapse(30.0)
        lost_at = now()
        await before.aclose()
        await elapse(seconds)
        during = sorted(probes)
        async with Gateway(port=before.port) as after:
            await elapse(40.0)
            assert after.open_sockets == STREAMS
            dials = [loop.statistics.dials - 1 for loop in loops]
            await asyncio.gather(*(one.aclose() for one in loops), *following)
            await until_idle(after)
    return Outage(dials, sorted(back.values()), during)


def outage(seconds: float, *, share: bool = True, seed: int = 5) -> Outage:
    # A dial under way must not be outrun, and the next timer of those that share is far off.
    grace = 0.02 if share else GRACE
    return in_virtual_time(lambda: live_through(seconds, share=share, seed=seed), grace)


def test_in_a_minute_without_a_gateway_one_stream_at_a_time_dials() -> None:
    shared = outage(60.0)
    assert mean(shared.dials) <= 3
    assert max(shared.dials) <= 3
    probes = [at for at in shared.probes if at > 1.0]
    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert min(gaps) > 0.5
    assert max(gaps) <= 5.0
    assert sum(outage(60.0, share=False).dials) > 3 * sum(shared.dials)


def test_once_a_probe_got_through_the_others_follow_within_a_second_and_not_at_once() -> None:
    shared = outage(60.0)
    assert shared.back[0] <= 5.5
    after = [at - shared.back[0] for at in shared.back[1:]]
    assert after[-1] <= 1.0
    by_tenth = Counter(int(at * 10) for at in after)
    assert max(by_tenth.values()) <= 15


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(0.5, marks=pytest.mark.slow), 3.0, pytest.param(10.0, marks=pytest.mark.slow)],
)
def test_streams_that_share_come_back_no_later_than_a_second_after_those_that_do_not(
    seconds: float,
) -> None:
    shared = [outage(seconds, seed=seed) for seed in range(2)]
    alone = [outage(seconds, share=False, seed=seed) for seed in range(2)]
    assert all(len(one.back) == STREAMS for one in (*shared, *alone))
    later = mean(mean(one.back) for one in shared) - mean(mean(one.back) for one in alone)
    assert later <= 1.0


def test_a_stream_that_is_alone_keeps_its_own_pace_in_an_outage() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=8)
        await bench.loop().run(once)
        at = [shake.request_at for shake in bench.gateway.handshakes]
        assert [later - earlier for earlier, later in pairwise(at)] == pytest.approx(
            [1, 2, 4, 8, 16, 20, 20, 20]
        )

    on_the_bench(scenario)


def test_what_refuses_one_caller_holds_up_no_other() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(429), times=20)
        limited = [asyncio.create_task(bench.loop().run(once)) for _ in range(20)]
        await settle()
        assert len(bench.gateway.handshakes) == 20
        await elapse(1.0)
        await settle()
        assert all(task.done() for task in limited)

    on_the_bench(scenario)


def test_waking_a_stream_that_waits_its_turn_has_it_dial_now() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=6)
        loops = [bench.loop() for _ in range(6)]
        running = [asyncio.create_task(loop.run(once)) for loop in loops]
        await settle()
        assert {loop.state for loop in loops} == {ReconnectState.BACKOFF}
        loops[-1].wake()
        await settle()
        assert now() == 0.0
        assert running[-1].done()
        await elapse(1.0)
        await asyncio.gather(*running)
        assert now() == pytest.approx(1.0)

    on_the_bench(scenario)


@pytest.mark.parametrize("end", ["closed", "cancelled"])
def test_a_stream_that_ends_while_its_turn_comes_hands_it_on(end: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=6)
        loops = [bench.loop() for _ in range(6)]
        running = [asyncio.create_task(loop.run(once)) for loop in loops]
        await settle()
        for loop, task in zip(loops[:-1], running[:-1], strict=True):
            if end == "closed":
                await loop.aclose()
            else:
                task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert now() <= 5.0
        assert loops[-1].statistics.opened == 1

    on_the_bench(scenario)


def test_streams_that_end_in_an_outage_put_no_probe_off() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=6)
        loops = [bench.loop() for _ in range(6)]
        running = [asyncio.create_task(loop.run(once)) for loop in loops]
        for loop in loops[:3]:
            await elapse(0.3)
            await loop.aclose()
        await asyncio.gather(*running)
        assert bench.gateway.handshakes[6].request_at <= 1.0

    on_the_bench(scenario)


def test_what_the_peer_asked_for_is_not_cut_short_because_another_got_through() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=5)
        bench.gateway.inject(Reject(503, {"Retry-After": "30"}))
        loops = [bench.loop() for _ in range(6)]
        running = [asyncio.create_task(loop.run(once)) for loop in loops]
        await elapse(25.0)
        assert [loop.statistics.opened for loop in loops].count(1) == 5
        await asyncio.gather(*running)
        assert now() == pytest.approx(31.0)

    on_the_bench(scenario)


def test_streams_of_two_event_loops_share_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=6)
        running = [asyncio.create_task(bench.loop().run(once)) for _ in range(6)]
        await settle()
        for task in running:
            task.cancel()
        await asyncio.wait(running)

    on_the_bench(scenario)
    test_a_stream_that_is_alone_keeps_its_own_pace_in_an_outage()


async def once(_: InferenceConnection) -> bool:
    """A pump that is done at once."""
    return True
