"""A mouth and an ear for an `AgentSession` without a room: it hears what it says."""

from __future__ import annotations

import asyncio

from livekit import rtc
from livekit.agents import Agent, AgentSession, UserInputTranscribedEvent
from livekit.agents.voice import io


class Microphone(io.AudioInput):
    """Gives what is put into it, in real time, as a room would; then silence."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__(label="loopback")
        self._silence = rtc.AudioFrame.create(sample_rate, 1, sample_rate // 20)
        self._frames: asyncio.Queue[rtc.AudioFrame] = asyncio.Queue()

    def put(self, frame: rtc.AudioFrame) -> None:
        """Let it hear `frame`."""
        self._frames.put_nowait(frame)

    async def __anext__(self) -> rtc.AudioFrame:
        frame = self._silence if self._frames.empty() else self._frames.get_nowait()
        await asyncio.sleep(frame.duration)
        return frame


class Loudspeaker(io.AudioOutput):
    """Plays into a microphone, in no time."""

    def __init__(self, microphone: Microphone, sample_rate: int) -> None:
        super().__init__(
            label="loopback",
            capabilities=io.AudioOutputCapabilities(pause=False),
            sample_rate=sample_rate,
        )
        self._microphone = microphone
        self._played = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Play `frame`."""
        await super().capture_frame(frame)
        self._microphone.put(frame)
        self._played += frame.duration

    def flush(self) -> None:
        """End what is said, which has been played by then."""
        super().flush()
        if self._played:
            played, self._played = self._played, 0.0
            self.on_playback_finished(playback_position=played, interrupted=False)

    def clear_buffer(self) -> None:
        """Nothing waits to be played."""


async def hear_itself(
    session: AgentSession[None], agent: Agent, text: str, sample_rate: int
) -> str:
    """Have a session say `text`; return what it hears first."""
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @session.on("user_input_transcribed")
    def on_transcript(event: UserInputTranscribedEvent) -> None:
        if event.is_final and not heard.done():
            heard.set_result(event.transcript)

    microphone = Microphone(sample_rate)
    session.input.audio = microphone
    session.output.audio = Loudspeaker(microphone, sample_rate)
    await session.start(agent)
    session.say(text, allow_interruptions=False)
    try:
        return await heard
    finally:
        await session.aclose()
