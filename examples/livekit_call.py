"""Call `livekit_agent.py` on a LiveKit server of this machine, with our line and without it.

    python examples/livekit_call.py

It starts the server, a local gateway with real speech, the agent as a worker and a caller, who
says "hello world" and hears the answer. Then it shows what the gateway saw of each connection.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from livekit import rtc
from livekit_local_server import INSTALL, LiveKitServer, find_server

from agent_conn.gateway import Gateway, LocalSpeech

SENTENCE = "hello world"
SAMPLE_RATE = 16_000
FRAME = SAMPLE_RATE // 50
AGENT = Path(__file__).with_name("livekit_agent.py")
CREDENTIALS = {"key": "local", "secret": "a secret that is long enough for HS256"}
PATIENCE = 45.0
"""Seconds for each step; a worker's start takes most of it on a busy machine."""


class Worker:
    """The agent's own process, told by what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._lines: list[str] = []

    async def says(self, text: str) -> str:
        """The line that has `text` in it, printed already or next."""
        assert self.process.stdout is not None
        for line in self._lines:
            if text in line:
                return line
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                self._lines.append(line)
                if text in line:
                    return line
        raise RuntimeError("the agent has ended:\n" + "".join(self._lines))


@asynccontextmanager
async def running_worker(
    server: LiveKitServer, gateway: Gateway, *, alone: bool
) -> AsyncIterator[Worker]:
    """The agent, registered with the server."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(AGENT), "dev", "--no-reload", "--log-level", "info"),
        env={
            **os.environ,
            **server.environment(),
            "LIVEKIT_INFERENCE_URL": gateway.base_url,
            "LIVEKIT_INFERENCE_API_KEY": CREDENTIALS["key"],
            "LIVEKIT_INFERENCE_API_SECRET": CREDENTIALS["secret"],
            "LIVEKIT_AGENT_ALONE": "1" if alone else "0",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    worker = Worker(process)
    try:
        await worker.says("registered worker")
        yield worker
    finally:
        # It leads a process group, to which its jobs belong.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


class Caller:
    """Someone with a microphone and an ear in a room."""

    def __init__(self, speech: LocalSpeech) -> None:
        self.room = rtc.Room()
        self._speech = speech
        self._ear = speech.recognizer(SAMPLE_RATE)
        self._source = rtc.AudioSource(SAMPLE_RATE, 1)
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self.room.on("track_subscribed", self._listen)

    async def join(self, server: LiveKitServer, room: str) -> None:
        """Enter the room, for which LiveKit dispatches the agent."""
        await self.room.connect(server.url, server.token("caller", room))
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        await self.room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        )

    async def say(self, text: str) -> None:
        """Speak, then be silent for a second."""
        async for piece in self._speech.synthesize(text, SAMPLE_RATE):
            await self._play(piece.pcm)
        await self._play(bytes(2 * SAMPLE_RATE))

    async def hears(self) -> str:
        """What is heard next."""
        async with asyncio.timeout(PATIENCE):
            return await self._heard.get()

    async def leave(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.room.disconnect()
        await self._source.aclose()
        await self._ear.aclose()

    async def _play(self, pcm: bytes) -> None:
        for start in range(0, len(pcm), 2 * FRAME):
            data = pcm[start : start + 2 * FRAME].ljust(2 * FRAME, b"\0")
            await self._source.capture_frame(rtc.AudioFrame(data, SAMPLE_RATE, 1, FRAME))

    def _listen(self, track: rtc.Track, *_: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._tasks.append(asyncio.create_task(self._hear(track)))

    async def _hear(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1)
        try:
            async for event in stream:
                for transcript in await self._ear.feed(bytes(event.frame.data)):
                    if transcript.final and transcript.text:
                        self._heard.put_nowait(transcript.text)
        finally:
            await stream.aclose()


async def call(server: LiveKitServer, speech: LocalSpeech, *, alone: bool) -> None:
    """One call; prints what was heard and what the gateway saw."""
    print("LiveKit alone" if alone else "with attribute_job()", flush=True)
    async with (
        Gateway(
            speech,
            chat_replies=[SENTENCE],
            api_key=CREDENTIALS["key"],
            api_secret=CREDENTIALS["secret"],
        ) as gateway,
        running_worker(server, gateway, alone=alone) as worker,
    ):
        caller = Caller(speech)
        await caller.join(server, "alone" if alone else "attributed")
        try:
            print("  " + (await worker.says("room connected after")).strip())
            print(f"  the agent greets: {await caller.hears()!r}")
            await caller.say(SENTENCE)
            print(f"  the caller says:  {SENTENCE!r}")
            print(f"  the agent answers: {await caller.hears()!r}", flush=True)
            show(gateway)
        finally:
            await caller.leave()


def show(gateway: Gateway) -> None:
    """A line for each request: dialled (.) until it was sent, then (#) until it was answered."""
    start = min(shake.accepted_at for shake in gateway.handshakes)
    print(f"  {'':16} {'level':5} {'agent':15} {'dialled':>8} {'sent':>8} {'answered':>8}")
    for shake in gateway.handshakes:
        dialled, sent = shake.accepted_at - start, shake.request_at - start
        answered = sent if shake.answered_at is None else shake.answered_at - start
        print(
            f"  {shake.path.removeprefix('/v1/'):16} {shake.level.name:5} "
            f"{shake.identity.agent_id or '-':15} {dialled:6.3f} s {sent:6.3f} s {answered:6.3f} s"
            f"  {bar(dialled, sent, answered)}"
        )


def bar(dialled: float, sent: float, answered: float) -> str:
    """The first half second, in 20 ms to a character."""
    points = [min(25, round(each / 0.02)) for each in (dialled, sent, answered)]
    waiting = "." * (points[1] - points[0])
    return " " * points[0] + waiting + "#" * max(1, points[2] - points[1])


async def main() -> None:
    """Call twice: with the line, and without it."""
    if find_server() is None:
        sys.exit(f"There is no LiveKit server on this machine. With Go 1.24 or later:\n  {INSTALL}")
    async with LocalSpeech() as speech, LiveKitServer() as server:
        await speech.warm_up()
        await call(server, speech, alone=False)
        await call(server, speech, alone=True)


if __name__ == "__main__":
    asyncio.run(main())
