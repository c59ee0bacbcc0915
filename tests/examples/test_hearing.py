"""The pump that hears, against a scripted gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp
import duplex
import pytest
import stt_pump
from audio import AudioPipe
from hearing import Heard
from helpers.pumps import HALF_SECOND, LOSSES, RATE, Silent, stt

from agent_conn import ConnectionLost, RetryPolicy
from agent_conn.gateway import (
    Connection,
    Fault,
    Gateway,
    GoSilent,
    Reset,
    ScriptedEngine,
    SpokenAudio,
    Transcript,
)


async def test_transcripts_come_in_order_and_the_session_is_closed_in_order(
    client: aiohttp.ClientSession,
) -> None:
    seen: list[Connection] = []
    heard: list[Heard] = []

    def hear(transcript: Heard) -> None:
        seen.extend(gateway.connections)
        heard.append(transcript)

    async with Gateway(ScriptedEngine(["one two three"])) as gateway:
        loop = stt(client, gateway)
        finals = await stt_pump.transcribe(
            loop, duplex.once(HALF_SECOND), sample_rate=RATE, on_transcript=hear, speed=100
        )
        await gateway.wait_idle()
        # session.create, ten chunks of 50 ms, session.finalize, session.close
        assert seen[0].messages_received == 13
        assert seen[0].close_code == 1000
    assert finals == ["one two three"]
    assert [(each.text, each.final) for each in heard] == [
        ("one", False),
        ("one two", False),
        ("one two three", False),
        ("one two three", True),
    ]
    assert loop.statistics.lost == 0


async def test_a_transcript_that_comes_only_as_the_session_closes_is_not_lost(
    client: aiohttp.ClientSession,
) -> None:
    async with Gateway(Silent(at_last="at last")) as gateway:
        finals = await stt_pump.transcribe(
            stt(client, gateway),
            duplex.once(HALF_SECOND),
            sample_rate=RATE,
            on_transcript=lambda _: None,
            speed=100,
        )
    assert finals == ["at last"]


async def test_audio_is_sent_no_faster_than_it_is_spoken(client: aiohttp.ClientSession) -> None:
    clock = asyncio.get_running_loop().time
    async with Gateway(ScriptedEngine()) as gateway:
        began = clock()
        await stt_pump.transcribe(
            stt(client, gateway),
            duplex.once(HALF_SECOND),
            sample_rate=RATE,
            on_transcript=lambda _: None,
        )
        # Ten chunks have nine intervals of 50 ms.
        assert clock() - began >= 0.45


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_a_final_loss_while_hearing_is_raised(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    def strike(_: Heard) -> None:
        # A second transcript may have been on its way when the first one struck.
        for connection in gateway.connections:
            connection.inject(fault)

    async with Gateway(ScriptedEngine()) as gateway:
        audio = AudioPipe(RATE)
        audio.put(HALF_SECOND)
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(10):
                await stt_pump.transcribe(
                    stt(client, gateway),
                    audio,
                    sample_rate=RATE,
                    on_transcript=strike,
                    speed=100,
                )
        await gateway.wait_idle()


async def test_a_final_loss_before_the_session_is_closed_is_raised(
    client: aiohttp.ClientSession,
) -> None:
    class Lost(Silent):
        async def finalize(self) -> list[Transcript]:
            await super().finalize()
            if self.finalized == 2:
                gateway.connections[0].inject(Reset())
                await gateway.wait_idle()
            return []

    async with Gateway(Lost()) as gateway:
        with pytest.raises(ConnectionLost):
            await stt_pump.transcribe(
                stt(client, gateway),
                duplex.once(HALF_SECOND),
                sample_rate=RATE,
                on_transcript=lambda _: None,
                speed=100,
            )


class Counting:
    """Hears the chunks of 50 ms by the number in each; every ten give a final."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.told = 0

    def recognizer(self, sample_rate: int, language: str | None = None) -> Counting:
        return Counting()

    async def feed(self, pcm: bytes) -> list[Transcript]:
        self.heard.append(pcm[0])
        if len(self.heard) - self.told == 10:
            return await self.finalize()
        return [Transcript(str(pcm[0]), False, self.told * 0.05, 0.05)]

    async def finalize(self) -> list[Transcript]:
        chunks, start = self.heard[self.told :], self.told * 0.05
        self.told = len(self.heard)
        text = " ".join(map(str, chunks))
        return [Transcript(text, True, start, len(chunks) * 0.05)] if chunks else []

    async def aclose(self) -> None:
        pass

    async def synthesize(
        self, text: str, sample_rate: int, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenAudio, None]:
        raise NotImplementedError
        yield


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_over_losses_every_chunk_is_transcribed_once_and_repetitions_are_marked(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    chunks = b"".join(bytes([number]) * (RATE // 10) for number in range(45))
    strikes = {7, 23, 38}
    repeated: list[str] = []

    def hear(heard: Heard) -> None:
        if heard.repeated:
            repeated.append(heard.text)
        numbers = {int(number) for number in heard.text.split()}
        if not heard.final and (due := strikes & numbers):
            strikes.difference_update(due)
            gateway.connections[-1].inject(fault)

    async with Gateway(Counting()) as gateway:
        loop = stt(client, gateway, retry=RetryPolicy(initial=0.01))
        finals = await stt_pump.transcribe(
            loop, duplex.once(chunks), sample_rate=RATE, on_transcript=hear, speed=20
        )
        await gateway.wait_idle()
    assert strikes == set()
    assert loop.statistics.opened == 4
    assert " ".join(finals) == " ".join(map(str, range(45)))
    assert repeated


async def test_an_error_message_while_hearing_is_raised(client: aiohttp.ClientSession) -> None:
    async with Gateway(ScriptedEngine()) as gateway:
        with pytest.raises(duplex.GatewayError, match="sample_rate must be 8000") as raised:
            await stt_pump.transcribe(
                stt(client, gateway, rate=4000),
                AudioPipe(RATE),
                sample_rate=4000,
                on_transcript=lambda _: None,
            )
        assert raised.value.code == 400
        await gateway.wait_idle()


async def test_what_the_audio_source_raises_is_raised(client: aiohttp.ClientSession) -> None:
    async def broken() -> AsyncIterator[bytes]:
        raise LookupError("no microphone")
        yield b""

    async with Gateway(ScriptedEngine()) as gateway:
        with pytest.raises(LookupError, match="no microphone"):
            await stt_pump.transcribe(
                stt(client, gateway), broken(), sample_rate=RATE, on_transcript=lambda _: None
            )
        await gateway.wait_idle()


async def test_a_gateway_that_answers_nothing_is_not_waited_for_without_bound(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stt_pump, "FINALIZE_SECONDS", 0.05)
    monkeypatch.setattr(duplex, "DRAIN_SECONDS", 0.05)
    async with Gateway(ScriptedEngine()) as gateway:
        gateway.inject(GoSilent())
        async with asyncio.timeout(10):
            finals = await stt_pump.transcribe(
                stt(client, gateway),
                duplex.once(HALF_SECOND),
                sample_rate=RATE,
                on_transcript=lambda _: None,
                speed=100,
            )
        assert finals == []
        await gateway.wait_idle()
