"""A voice agent's round trip: one pump speaks a sentence, the other hears that very audio.

Both connections are dialled at once, while the job's room is still connecting. Without
`--url` a gateway with real speech is started on this machine; `--drop` has it cut both connections
off in mid-sentence, of which nothing is lost.

python examples/voice_roundtrip.py

Needs: pip install -e '.[cli,speech]' in the project's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

try:
    import aiohttp
    import stt_pump
    import tts_pump
    from audio import AudioPipe
    from command_line import gateway_parser, run, seconds, service_url, wav_file, words
    from duplex import GatewayError, once
    from hearing import Heard
    from report import Scene, print_report
    from rich.live import Live
    from stage import Room, gateway_at

    from agent_conn import InferenceConnection, Reconnector, reconnect
except ImportError as missing:
    sys.exit(f"voice_roundtrip.py needs {missing.name}: pip install -e '.[cli,speech]'")

SENTENCE = "What time is it? We will meet again tomorrow."
SAMPLE_RATE = 16_000


async def roundtrip(options: argparse.Namespace) -> None:
    """Speak and hear, or only hear a file; then tell how the connections were opened."""
    recording, rate = options.wav or (b"", SAMPLE_RATE)
    audio = AudioPipe(rate)
    async with gateway_at(options) as (url, token, tls, cut), aiohttp.ClientSession() as session:
        room = Room(None if options.no_room else options.room_after)
        scene = Scene(room, audio)
        dial = partial(
            InferenceConnection,
            session,
            identity=room.identity,
            room_connected=room.connected,
            connect_wait=options.connect_wait,
            token=token,
            ssl=tls,
        )

        def line(service: str, create: Callable[..., Awaitable[None]]) -> Reconnector:
            begin = partial(create, sample_rate=rate)
            return reconnect(partial(dial, service_url(url, service), on_open=begin))

        def drop(service: str) -> None:
            if options.drop and scene.cut(service):
                cut(service)

        def play(pcm: bytes) -> None:
            audio.put(pcm)
            drop("tts")

        def hear(transcript: Heard) -> None:
            scene.hear(transcript)
            drop("stt")

        hearing = line("stt", stt_pump.create_session)
        speaking = None if recording else line("tts", tts_pump.create_session)

        async def speak() -> None:
            if speaking is not None:
                await tts_pump.speak(
                    speaking,
                    once(options.say),
                    on_audio=play,
                    on_connection=partial(scene.use, "tts"),
                )
            audio.put(recording)
            audio.end()

        with Live(get_renderable=lambda: scene, refresh_per_second=10):
            await _in_parallel(
                stt_pump.transcribe(
                    hearing,
                    audio,
                    sample_rate=rate,
                    on_transcript=hear,
                    on_connection=partial(scene.use, "stt"),
                ),
                speak(),
            )
    print_report(scene.connections)
    if not any(scene.finals):
        raise GatewayError("no transcript came")


async def _in_parallel(*pumps: Coroutine[Any, Any, object]) -> None:
    # The first that fails ends the others, and is raised itself instead of a group.
    try:
        async with asyncio.TaskGroup() as group:
            for number, pump in enumerate(pumps):
                group.create_task(pump, name=f"pump-{number}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


if __name__ == "__main__":
    parser = gateway_parser("Speak a sentence and hear it again.", url_required=False)
    parser.add_argument("--say", type=words, default=SENTENCE, metavar="TEXT")
    parser.add_argument("--wav", type=wav_file, metavar="FILE", help="hear it, speak nothing")
    parser.add_argument("--room-after", type=seconds, default=0.8, metavar="SECONDS")
    parser.add_argument("--connect-wait", type=seconds, default=2.0, metavar="SECONDS")
    parser.add_argument("--drop", action="store_true", help="cut both off in mid-sentence")
    parser.add_argument("--no-room", action="store_true", help="a job without a room")
    run(roundtrip, parser)
