"""Text to speech: sentences go in as they come, audio comes out as it is made.

python examples/tts_pump.py --url https://gateway.example/v1 --say "Hello." --wav speech.wav

Needs agent-conn; with --api-key its extra cli: pip install -e '.[cli]' in the project's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from collections.abc import AsyncIterable, Callable
from functools import partial

try:
    import aiohttp
    from audio import write_wav
    from command_line import gateway_parser, run, service_url, token_source, words
    from duplex import GatewayError, ask, once, receive
    from staying import converse_over

    from agent_conn import InferenceConnection, Reconnector, ReplayBuffer, reconnect
except ImportError as missing:
    sys.exit(f"tts_pump.py needs {missing.name}: pip install -e '.[cli]'")

SILENCE_SECONDS = 30.0
SAMPLE_RATE = 24_000


async def create_session(ws: aiohttp.ClientWebSocketResponse, *, sample_rate: int) -> None:
    """Begin a session; a connection's `on_open`."""
    settings = {"sample_rate": str(sample_rate), "encoding": "pcm_s16le", "extra": {}}
    await ws.send_json({"type": "session.create", **settings})


async def feed(sentences: AsyncIterable[str], buffer: ReplayBuffer[str]) -> None:
    """Put `sentences` into `buffer` as they come, and end it."""
    try:
        async for sentence in sentences:
            buffer.put_nowait(sentence, size=len(sentence.encode()))
    finally:
        buffer.end()


async def speak(
    loop: Reconnector,
    sentences: AsyncIterable[str],
    *,
    on_audio: Callable[[bytes], object],
    on_connection: Callable[[InferenceConnection], object] = lambda _: None,
) -> None:
    """Have `sentences` spoken one after another.

    `on_audio` gets pcm_s16le mono, at the session's sample rate, as it comes. A sentence that
    was cut is spoken anew on the next connection, and what `on_audio` has of it is left out.
    Raises AgentConnError where `loop` gives up, GatewayError for an `error`, or for silence.
    """
    buffer = ReplayBuffer[str]()
    progress, given = asyncio.Event(), 0

    async def read(connection: InferenceConnection, _: float) -> None:
        nonlocal given
        on_connection(connection)
        known = given
        while (message := await receive(connection)) is not None:
            match message:
                case {"type": "output_audio", "audio": str(audio)}:
                    pcm = base64.b64decode(audio)
                    if new := pcm[known:]:
                        given += len(new)
                        on_audio(new)
                    known = max(known - len(pcm), 0)
                case {"type": "done"}:
                    buffer.acknowledge_items(1)
                    given = known = 0
            progress.set()

    async def write(ws: aiohttp.ClientWebSocketResponse) -> None:
        async for sentence in buffer:
            await ask(ws, sentence)
        while buffer.statistics.pending:
            progress.clear()
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await progress.wait()
            except TimeoutError:
                raise GatewayError(f"no audio in {SILENCE_SECONDS:g} s") from None
        await ws.send_json({"type": "session.close"})

    feeding = partial(feed, sentences, buffer)
    await converse_over(loop, buffer, feed=feeding, read=read, write=write)


async def _speak_to_file(options: argparse.Namespace) -> None:
    pcm = bytearray()
    async with aiohttp.ClientSession() as session:
        dial = partial(
            InferenceConnection,
            session,
            service_url(options.url, "tts"),
            token=token_source(options),
            on_open=partial(create_session, sample_rate=SAMPLE_RATE),
        )
        await speak(reconnect(dial), once(options.say), on_audio=pcm.extend)
    await asyncio.to_thread(write_wav, options.wav, bytes(pcm), SAMPLE_RATE)
    print(f"{len(pcm) / 2 / SAMPLE_RATE:.2f} s of speech in {options.wav}")


if __name__ == "__main__":
    parser = gateway_parser("Speak into a WAV file.")
    parser.add_argument("--say", type=words, required=True, metavar="TEXT")
    parser.add_argument("--wav", required=True, metavar="FILE", help="where the speech goes")
    run(_speak_to_file, parser)
