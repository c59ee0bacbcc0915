"""Ten sentences, each a turn of its own, spoken over one connection that a pool keeps warm.

python examples/pooled_tts.py --url https://gateway.example/v1 --wav speech.wav

The token is taken from LIVEKIT_INFERENCE_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import wave
from collections.abc import Iterable
from functools import partial

import aiohttp

from agent_conn import ConnectionPool, InferenceConnection, PoolStatistics

SAMPLE_RATE = 24_000
SILENCE_SECONDS = 30.0
SENTENCES = (
    "Good morning.",
    "Your table is booked for seven.",
    "There will be four of you.",
    "The terrace is open tonight.",
    "Shall I note any allergies?",
    "No nuts, then.",
    "There is parking behind the house.",
    "We keep the table for a quarter of an hour.",
    "You can cancel until five.",
    "See you tonight.",
)


async def create_session(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Begin a session; a connection's `on_open`, so once for each dial."""
    settings = {"sample_rate": str(SAMPLE_RATE), "encoding": "pcm_s16le", "extra": {}}
    await ws.send_json({"type": "session.create", **settings})


async def say(pool: ConnectionPool, sentence: str) -> bytes:
    """Have one sentence spoken; return it as pcm_s16le mono.

    Raises:
        AgentConnError: no connection could be had.
        RuntimeError: it ended, or the gateway reported an error, before all was spoken.
        TimeoutError: the gateway fell silent.
    """
    pcm = bytearray()
    async with pool.acquire() as connection, asyncio.timeout(SILENCE_SECONDS):
        # What came since the last turn belongs to none.
        pool.early(connection)
        text = {"type": "input_transcript", "transcript": sentence}
        await connection.ws.send_json(text | {"generation_config": {}, "extra": {}})
        await connection.ws.send_json({"type": "session.flush"})
        async for frame in connection.ws:
            match json.loads(frame.data):
                case {"type": "output_audio", "audio": str(audio)}:
                    pcm += base64.b64decode(audio)
                case {"type": "done"}:
                    return bytes(pcm)
                case {"type": "error", **details}:
                    raise RuntimeError(f"the gateway reports an error: {details.get('message')}")
    raise RuntimeError("the connection ended before all was spoken")


async def speak(url: str, sentences: Iterable[str]) -> tuple[bytes, PoolStatistics]:
    """Speak one sentence after another; return the audio and what the pool did for it."""
    token = os.environ.get("LIVEKIT_INFERENCE_TOKEN") or None
    async with aiohttp.ClientSession() as session:
        tts = f"{url.rstrip('/')}/tts?model=auto"
        dial = partial(InferenceConnection, session, tts, token=token, on_open=create_session)
        async with ConnectionPool(dial) as pool:
            pool.prewarm()
            audio = [await say(pool, sentence) for sentence in sentences]
            return b"".join(audio), pool.statistics()


def main() -> None:
    """Speak into a WAV file."""
    parser = argparse.ArgumentParser(description="Speak ten sentences into a WAV file.")
    parser.add_argument("--url", required=True, help="base URL of a gateway")
    parser.add_argument("--wav", required=True, metavar="FILE", help="where the speech goes")
    options = parser.parse_args()
    pcm, did = asyncio.run(speak(options.url, SENTENCES))
    with wave.open(options.wav, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(pcm)
    print(f"{did.acquired} sentences over {did.dialed} dial: {len(pcm) / 2 / SAMPLE_RATE:.1f} s")


if __name__ == "__main__":
    main()
