"""Ten sentences, each a turn of its own, spoken over one connection that a pool keeps warm.

python examples/pooled_tts.py --url https://gateway.example/v1 --wav speech.wav

Needs agent-conn; with --api-key its extra cli: pip install -e '.[cli]' in the project's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from collections.abc import Iterable
from functools import partial

try:
    import aiohttp
    from audio import write_wav
    from command_line import gateway_parser, run, service_url, token_source
    from duplex import GatewayError, ask, receive
    from tts_pump import SAMPLE_RATE, SILENCE_SECONDS, create_session

    from agent_conn import ConnectionPool, InferenceConnection, PoolStatistics, TokenSource
except ImportError as missing:
    sys.exit(f"pooled_tts.py needs {missing.name}: pip install -e '.[cli]'")

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


async def say(pool: ConnectionPool, sentence: str) -> bytes:
    """Have one sentence spoken; return it as pcm_s16le mono.

    Raises:
        AgentConnError: no connection could be had, or it was lost.
        GatewayError: the gateway reports an error, falls silent, or ends before all was spoken.
    """
    pcm = bytearray()
    async with pool.acquire() as connection:
        await ask(connection.ws, sentence)
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                while (message := await receive(connection)) is not None:
                    match message:
                        case {"type": "output_audio", "audio": str(audio)}:
                            pcm += base64.b64decode(audio)
                        case {"type": "done"}:
                            return bytes(pcm)
        except TimeoutError:
            raise GatewayError(f"not spoken in {SILENCE_SECONDS:g} s") from None
        raise GatewayError("the gateway ended before all was spoken")


async def speak(
    url: str, sentences: Iterable[str], *, token: TokenSource | None = None
) -> tuple[bytes, PoolStatistics]:
    """Speak one sentence after another; return the audio and what the pool did for it."""
    async with aiohttp.ClientSession() as session:
        begin = partial(create_session, sample_rate=SAMPLE_RATE)
        tts = service_url(url, "tts")
        dial = partial(InferenceConnection, session, tts, token=token, on_open=begin)
        async with ConnectionPool(dial) as pool:
            pool.prewarm()
            audio = [await say(pool, sentence) for sentence in sentences]
            return b"".join(audio), pool.statistics()


async def _speak_to_file(options: argparse.Namespace) -> None:
    pcm, did = await speak(options.url, SENTENCES, token=token_source(options))
    await asyncio.to_thread(write_wav, options.wav, pcm, SAMPLE_RATE)
    seconds = len(pcm) / 2 / SAMPLE_RATE
    print(f"{did.acquired} sentences over {did.dialed} dial: {seconds:.1f} s in {options.wav}")


if __name__ == "__main__":
    parser = gateway_parser("Speak ten sentences into a WAV file.")
    parser.add_argument("--wav", required=True, metavar="FILE", help="where the speech goes")
    run(_speak_to_file, parser)
