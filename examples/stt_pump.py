"""Speech to text: audio goes in as it comes, transcripts come out as they are heard.

python examples/stt_pump.py --url https://gateway.example/v1 --wav speech.wav
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from functools import partial

import aiohttp
from audio import send_audio
from command_line import gateway_parser, run, service_url, token_source, wav_file
from duplex import converse, once, receive

from agent_conn import InferenceConnection
from agent_conn.gateway import Transcript

FINALIZE_SECONDS, AFTER_FINAL_SECONDS = 30.0, 3.0


async def create_session(ws: aiohttp.ClientWebSocketResponse, *, sample_rate: int) -> None:
    """Begin a session; a connection's `on_open`."""
    settings = {"sample_rate": str(sample_rate), "encoding": "pcm_s16le", "extra": {}}
    await ws.send_json({"type": "session.create", "settings": settings})


async def transcribe(
    connection: InferenceConnection,
    audio: AsyncIterable[bytes],
    *,
    sample_rate: int,
    on_transcript: Callable[[Transcript], object],
    speed: float = 1.0,
) -> list[str]:
    """Open `connection`, send pcm_s16le mono at `speed` times real time; return the finals.

    Raises AgentConnError where it does not open or is lost, GatewayError for an `error`.
    """
    finals: list[str] = []
    heard, finalized = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        while (message := await receive(connection)) is not None:
            match message:
                case {"type": "final_transcript", "transcript": str(text)}:
                    finals.append(text)
                    on_transcript(Transcript(text, final=True))
                    heard.set()
                case {"type": "interim_transcript", "transcript": str(text)}:
                    on_transcript(Transcript(text, final=False))
                case {"type": "session.finalized"}:
                    heard.set()
                    finalized.set()

    async def write(ws: aiohttp.ClientWebSocketResponse) -> None:
        await send_audio(ws, audio, sample_rate, speed)
        heard.clear()
        await ws.send_json({"type": "session.finalize"})
        # Both answers are optional, so that their absence is no error.
        with suppress(TimeoutError):
            async with asyncio.timeout(FINALIZE_SECONDS):
                await heard.wait()
            async with asyncio.timeout(AFTER_FINAL_SECONDS):
                await finalized.wait()
        await ws.send_json({"type": "session.close"})

    async with connection as ws:
        await converse(connection, read(), write(ws))
    return finals


async def _transcribe_file(options: argparse.Namespace) -> None:
    pcm, rate = options.wav
    async with aiohttp.ClientSession() as session:
        connection = InferenceConnection(
            session,
            service_url(options.url, "stt"),
            token=token_source(options),
            on_open=partial(create_session, sample_rate=rate),
        )
        await transcribe(connection, once(pcm), sample_rate=rate, on_transcript=_show)


def _show(heard: Transcript) -> None:
    print(heard.text if heard.final else f"({heard.text})", flush=True)


if __name__ == "__main__":
    parser = gateway_parser("Transcribe a WAV file.")
    parser.add_argument("--wav", type=wav_file, required=True, help="16-bit PCM, mono or stereo")
    run(_transcribe_file, parser)
