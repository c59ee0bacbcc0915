"""Speech as pcm_s16le mono: in WAV files, and on its way to a gateway."""

from __future__ import annotations

import asyncio
import base64
import wave
from collections.abc import AsyncIterable, AsyncIterator

import aiohttp

from agent_conn import ReplayBuffer

CHUNK_SECONDS = 0.05


class AudioPipe:
    """Carries audio from the pump that speaks to the pump that hears, and counts its seconds."""

    def __init__(self, sample_rate: int) -> None:
        self.spoken = 0.0
        self.heard = 0.0
        self._bytes_per_second = 2 * sample_rate
        self._piece_bytes = chunk_bytes(sample_rate)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()

    def put(self, pcm: bytes) -> None:
        """Add audio of any length."""
        self.spoken += len(pcm) / self._bytes_per_second
        for start in range(0, len(pcm), self._piece_bytes):
            self._pieces.put_nowait(pcm[start : start + self._piece_bytes])

    def end(self) -> None:
        """Add nothing more."""
        self._pieces.put_nowait(b"")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        pcm = await self._pieces.get()
        if not pcm:
            raise StopAsyncIteration
        self.heard += len(pcm) / self._bytes_per_second
        return pcm


def chunk_bytes(sample_rate: int) -> int:
    """Return the size of 50 ms."""
    return round(sample_rate * CHUNK_SECONDS) * 2


async def record(
    audio: AsyncIterable[bytes], buffer: ReplayBuffer[bytes], sample_rate: int, speed: float
) -> None:
    """Put `audio` into `buffer` in chunks of 50 ms, at `speed` times real time, and end it."""
    now = asyncio.get_running_loop().time
    size = chunk_bytes(sample_rate)
    due, pending = now(), b""
    try:
        async for pcm in audio:
            pending += pcm
            end = len(pending) - len(pending) % size
            for start in range(0, end, size):
                await asyncio.sleep(due - now())
                _put(buffer, pending[start : start + size], sample_rate)
                due = max(due + CHUNK_SECONDS / speed, now())
            pending = pending[end:]
        if pending:
            _put(buffer, pending, sample_rate)
    finally:
        buffer.end()


def _put(buffer: ReplayBuffer[bytes], pcm: bytes, sample_rate: int) -> None:
    buffer.put_nowait(pcm, size=len(pcm), seconds=len(pcm) / 2 / sample_rate)


async def send_audio(ws: aiohttp.ClientWebSocketResponse, buffer: ReplayBuffer[bytes]) -> None:
    """Send what `buffer` gives, until it ends."""
    async for pcm in buffer:
        await ws.send_json({"type": "input_audio", "audio": base64.b64encode(pcm).decode()})


def write_wav(name: str, pcm: bytes, sample_rate: int) -> None:
    """Write mono speech to a file."""
    with wave.open(name, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm)
