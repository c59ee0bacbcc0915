"""Speech to text: audio goes in as it comes, transcripts come out as they are heard.

python examples/stt_pump.py --url https://gateway.example/v1 --wav speech.wav

Needs agent-conn; with --api-key its extra cli: pip install -e '.[cli]' in the project's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from functools import partial

try:
    import aiohttp
    from audio import record, send_audio
    from command_line import gateway_parser, run, service_url, token_source, wav_file
    from duplex import once, receive
    from hearing import Heard, show
    from staying import converse_over

    from agent_conn import InferenceConnection, Reconnector, ReplayBuffer, reconnect
except ImportError as missing:
    sys.exit(f"stt_pump.py needs {missing.name}: pip install -e '.[cli]'")

FINALIZE_SECONDS, AFTER_FINAL_SECONDS = 30.0, 3.0


async def create_session(ws: aiohttp.ClientWebSocketResponse, *, sample_rate: int) -> None:
    """Begin a session; a connection's `on_open`."""
    settings = {"sample_rate": str(sample_rate), "encoding": "pcm_s16le", "extra": {}}
    await ws.send_json({"type": "session.create", "settings": settings})


async def transcribe(
    loop: Reconnector,
    audio: AsyncIterable[bytes],
    *,
    sample_rate: int,
    on_transcript: Callable[[Heard], object],
    on_connection: Callable[[InferenceConnection], object] = lambda _: None,
    speed: float = 1.0,
) -> list[str]:
    """Send pcm_s16le mono at `speed` times real time; return the finals.

    Audio that no final covers when a connection is lost is sent again on the next one.
    Raises AgentConnError where `loop` gives up, GatewayError for an `error`.
    """
    finals: list[str] = []
    buffer = ReplayBuffer[bytes]()
    heard, finalized = asyncio.Event(), asyncio.Event()

    async def read(connection: InferenceConnection, repeated: float) -> None:
        on_connection(connection)
        while (message := await receive(connection)) is not None:
            start, duration = message.get("start", 0.0), message.get("duration", 0.0)
            match message:
                case {"type": "final_transcript", "transcript": str(text)}:
                    buffer.acknowledge(start + duration)
                    finals.append(text)
                    on_transcript(Heard(text, final=True, repeated=start < repeated))
                    heard.set()
                case {"type": "interim_transcript", "transcript": str(text)}:
                    on_transcript(Heard(text, final=False, repeated=start < repeated))
                case {"type": "session.finalized"}:
                    heard.set()
                    finalized.set()

    async def write(ws: aiohttp.ClientWebSocketResponse) -> None:
        await send_audio(ws, buffer)
        heard.clear()
        finalized.clear()
        await ws.send_json({"type": "session.finalize"})
        # Both answers are optional, so their absence is not an error.
        with suppress(TimeoutError):
            async with asyncio.timeout(FINALIZE_SECONDS):
                await heard.wait()
            async with asyncio.timeout(AFTER_FINAL_SECONDS):
                await finalized.wait()
        await ws.send_json({"type": "session.close"})

    feed = partial(record, audio, buffer, sample_rate, speed)
    await converse_over(loop, buffer, feed=feed, read=read, write=write)
    return finals


async def _transcribe_file(options: argparse.Namespace) -> None:
    pcm, rate = options.wav
    async with aiohttp.ClientSession() as session:
        dial = partial(
            InferenceConnection,
            session,
            service_url(options.url, "stt"),
            token=token_source(options),
            on_open=partial(create_session, sample_rate=rate),
        )
        await transcribe(reconnect(dial), once(pcm), sample_rate=rate, on_transcript=show)


if __name__ == "__main__":
    parser = gateway_parser("Transcribe a WAV file.")
    parser.add_argument("--wav", type=wav_file, required=True, help="16-bit PCM, mono or stereo")
    run(_transcribe_file, parser)
