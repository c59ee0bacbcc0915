"""The examples' pumps on a local gateway, and an engine that says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

import aiohttp
import stt_pump
import tts_pump

from agent_conn import InferenceConnection, Reconnector, RetryPolicy, reconnect
from agent_conn.gateway import CloseWith, DropAfter, Fault, Gateway, Reset, SpokenAudio, Transcript

RATE = 16_000
HALF_SECOND = bytes(RATE)
LOSSES: list[Fault] = [DropAfter(), Reset(), CloseWith(1011), CloseWith(1000)]
NEVER_AGAIN = RetryPolicy(classify=lambda _: False)


def stt(
    client: aiohttp.ClientSession,
    gateway: Gateway,
    rate: int = RATE,
    retry: RetryPolicy = NEVER_AGAIN,
) -> Reconnector:
    begin = partial(stt_pump.create_session, sample_rate=rate)
    url = gateway.url("/v1/stt?model=auto")
    return reconnect(partial(InferenceConnection, client, url, on_open=begin), retry=retry)


def tts(
    client: aiohttp.ClientSession,
    gateway: Gateway,
    rate: int = RATE,
    retry: RetryPolicy = NEVER_AGAIN,
) -> Reconnector:
    begin = partial(tts_pump.create_session, sample_rate=rate)
    url = gateway.url("/v1/tts?model=auto")
    return reconnect(partial(InferenceConnection, client, url, on_open=begin), retry=retry)


class Silent:
    """An engine that neither hears nor speaks; `at_last` is heard as the session closes."""

    def __init__(self, at_last: str = "") -> None:
        self.at_last = at_last
        self.finalized = 0

    def recognizer(self, sample_rate: int, language: str | None = None) -> Silent:
        return self

    async def feed(self, pcm: bytes) -> list[Transcript]:
        return []

    async def finalize(self) -> list[Transcript]:
        self.finalized += 1
        if self.finalized < 2 or not self.at_last:
            return []
        return [Transcript(self.at_last, final=True)]

    async def aclose(self) -> None:
        pass

    async def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        await asyncio.Event().wait()
        yield SpokenAudio(b"")
