"""One interruption session: whoever speaks over the agent interrupts it, by a fixed probability.

Control messages are JSON text. Audio is binary: the client's clock in eight bytes, little
endian, which the answer repeats, and then pcm_s16le.
"""

from __future__ import annotations

import struct

from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.protocol import (
    BAD_MESSAGE,
    BYTES_PER_SAMPLE,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    JsonObject,
    ProtocolError,
    error,
    parse_object,
    session_closed,
    session_created,
)

THRESHOLD = 0.5
"""From this probability on a client that names no threshold is told of an interruption."""
FRAME_SECONDS = 0.025
CLOCK = struct.Struct("<Q")


class BargeinSession:
    """Answers every piece of overlapping speech with `probability` for each of its frames."""

    def __init__(self, connection: Connection, probability: float, session_id: str) -> None:
        self._connection = connection
        self._probability = probability
        self._session_id = session_id
        self._threshold = THRESHOLD
        self._sample_rate: int | None = None

    async def run(self) -> None:
        """Serve the session until either side ends it.

        Raises:
            ConnectionError: the peer went away while something was sent.
        """
        async for data in self._connection:
            try:
                if isinstance(data, bytes):
                    await self._connection.send_json(self._judge(data))
                elif not await self._control(data):
                    await self._connection.close()
                    return
            except ProtocolError as mistake:
                await self._connection.send_json(error(str(mistake), BAD_MESSAGE, self._session_id))

    async def _control(self, text: str) -> bool:
        message = parse_object(text)
        match message.get("type"):
            case "session.create":
                if self._sample_rate is not None:
                    raise ProtocolError("the session exists already")
                self._create(message.get("settings"))
                created = session_created(self._session_id) | {"default_threshold": THRESHOLD}
                await self._connection.send_json(created)
            case "session.close":
                await self._connection.send_json(session_closed(self._session_id))
                return False
        return True

    def _create(self, settings: object) -> None:
        if not isinstance(settings, dict):
            raise ProtocolError("settings must be an object")
        rate = _number(settings, "sample_rate")
        if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
            raise ProtocolError(f"sample_rate must be {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} hertz")
        self._threshold = _number({"threshold": THRESHOLD} | settings, "threshold")
        self._sample_rate = int(rate)

    def _judge(self, data: bytes) -> JsonObject:
        if self._sample_rate is None:
            raise ProtocolError("session.create must come first")
        size = len(data) - CLOCK.size
        if size < 0 or size % BYTES_PER_SAMPLE:
            raise ProtocolError("audio must be eight bytes of clock and then whole samples")
        frames = round(size / BYTES_PER_SAMPLE / self._sample_rate / FRAME_SECONDS)
        interrupts = self._probability >= self._threshold
        return {
            "type": "bargein_detected" if interrupts else "inference_done",
            "created_at": CLOCK.unpack_from(data)[0],
            "prediction_duration": 0.0,
            "probabilities": [self._probability] * frames,
        }


def _number(settings: JsonObject, name: str) -> float:
    value = settings.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ProtocolError(f"{name} must be a number")
    return value
