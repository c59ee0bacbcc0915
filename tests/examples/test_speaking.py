"""The pump that speaks, against a scripted gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp
import duplex
import pytest
import tts_pump
from helpers.pumps import LOSSES, RATE, Silent, tts

from agent_conn import ConnectionLost, RetryPolicy
from agent_conn.gateway import Connection, Fault, Gateway, ScriptedEngine, SpokenAudio


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_over_a_loss_speech_goes_on_with_the_sentence_that_was_not_finished(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    spoken: list[str] = []
    pcm = bytearray()

    class Losing(Silent):
        async def synthesize(
            self,
            text: str,
            sample_rate: int,
            *,
            voice: str | None = None,
            language: str | None = None,
        ) -> AsyncGenerator[SpokenAudio, None]:
            spoken.append(text)
            yield SpokenAudio(bytes(320))
            if spoken == ["One.", "Two."]:
                gateway.connections[-1].inject(fault)
                await asyncio.Event().wait()

    async def sentences() -> AsyncIterator[str]:
        for sentence in ("One.", "Two.", "Three."):
            yield sentence

    async with Gateway(Losing()) as gateway:
        loop = tts(client, gateway, retry=RetryPolicy())
        await tts_pump.speak(loop, sentences(), on_audio=pcm.extend)
        await gateway.wait_idle()
    assert spoken == ["One.", "Two.", "Two.", "Three."]
    assert len(pcm) == 3 * 320


async def test_sentences_are_spoken_and_the_session_is_closed_in_order(
    client: aiohttp.ClientSession,
) -> None:
    async def sentences() -> AsyncIterator[str]:
        yield "One."
        yield "Two."

    pcm = bytearray()
    seen: list[Connection] = []

    def play(audio: bytes) -> None:
        seen.extend(gateway.connections)
        pcm.extend(audio)

    async with Gateway(ScriptedEngine()) as gateway:
        loop = tts(client, gateway)
        await tts_pump.speak(loop, sentences(), on_audio=play)
        await gateway.wait_idle()
        # session.create, two texts with their session.flush, session.close
        assert seen[0].messages_received == 6
        assert seen[0].close_code == 1000
    # The scripted engine speaks 60 ms for each character of "One." and "Two.".
    assert len(pcm) / 2 / RATE == pytest.approx(0.48)
    assert loop.statistics.lost == 0


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_a_final_loss_while_speaking_is_raised(
    client: aiohttp.ClientSession, fault: Fault
) -> None:
    async with Gateway(Silent()) as gateway:
        gateway.inject(fault)
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(10):
                await tts_pump.speak(
                    tts(client, gateway), duplex.once("Hello."), on_audio=lambda _: None
                )
        await gateway.wait_idle()


async def test_an_error_message_while_speaking_is_raised(client: aiohttp.ClientSession) -> None:
    async with Gateway(ScriptedEngine()) as gateway:
        with pytest.raises(duplex.GatewayError, match="sample_rate must be 8000"):
            await tts_pump.speak(
                tts(client, gateway, rate=4000), duplex.once("Hello."), on_audio=lambda _: None
            )
        await gateway.wait_idle()


async def test_a_gateway_that_falls_silent_while_speaking_is_an_error(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tts_pump, "SILENCE_SECONDS", 0.05)
    async with Gateway(Silent()) as gateway:
        with pytest.raises(duplex.GatewayError, match=r"no audio in 0\.05 s"):
            await tts_pump.speak(
                tts(client, gateway), duplex.once("Hello."), on_audio=lambda _: None
            )
        await gateway.wait_idle()
