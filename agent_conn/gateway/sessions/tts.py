"""One text-to-speech session on an open connection."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.protocol import (
    BAD_MESSAGE,
    ENGINE_FAILED,
    ClientMessage,
    InputTranscript,
    Kind,
    ProtocolError,
    SessionClose,
    SessionFlush,
    TtsCreate,
    done,
    error,
    output_alignment,
    output_audio,
    parse_client_message,
    seconds_of,
    session_closed,
    session_created,
    split_audio,
)
from agent_conn.gateway.speech.engine import SpeechEngine, SpeechFailed, SpeechUnavailable

log: logging.Logger = logging.getLogger("agent_conn.gateway")


class TtsSession:
    """Speaks the connection's texts, one flush after another, while it goes on reading."""

    def __init__(self, connection: Connection, engine: SpeechEngine, session_id: str) -> None:
        self._connection = connection
        self._engine = engine
        self._session_id = session_id
        self._created: TtsCreate | None = None
        self._texts: list[str] = []
        self._flushed: asyncio.Queue[str | None] = asyncio.Queue()

    async def run(self) -> None:
        """Serve the session until either side ends it.

        Raises:
            ConnectionError: the peer went away while something was sent.
        """
        number = self._connection.handshake.socket_number
        speaker = asyncio.create_task(self._speak_all(), name=f"gateway-tts-{number}")
        try:
            async for text in self._connection:
                if not await self._serve(text):
                    self._flushed.put_nowait(None)
                    await speaker
                    await self._connection.send_json(session_closed(self._session_id))
                    await self._connection.close()
                    return
        finally:
            speaker.cancel()
            await asyncio.gather(speaker, return_exceptions=True)

    async def _serve(self, text: str | bytes) -> bool:
        try:
            return await self._dispatch(parse_client_message(text, Kind.TTS))
        except ProtocolError as mistake:
            await self._send_error(str(mistake), BAD_MESSAGE)
        return True

    async def _dispatch(self, message: ClientMessage) -> bool:
        match message:
            case TtsCreate():
                if self._created is not None:
                    raise ProtocolError("the session exists already")
                self._created = message
                await self._connection.send_json(session_created(self._session_id))
            case InputTranscript(text=text):
                self._require_session()
                self._texts.append(text)
                self._connection.count(characters=len(text))
            case SessionFlush():
                self._require_session()
                self._flushed.put_nowait("".join(self._texts))
                self._texts.clear()
            case SessionClose():
                return False
        return True

    def _require_session(self) -> TtsCreate:
        if self._created is None:
            raise ProtocolError("session.create must come first")
        return self._created

    async def _speak_all(self) -> None:
        while (text := await self._flushed.get()) is not None:
            try:
                await self._speak(text)
            except ConnectionError:
                return
            except (SpeechFailed, SpeechUnavailable) as failure:
                log.warning("gateway.engine_failed", extra={"error": type(failure).__name__})
                await self._send_error(str(failure), ENGINE_FAILED)

    async def _speak(self, text: str) -> None:
        session = self._require_session()
        if text.strip():
            speech = self._engine.synthesize(
                text, session.sample_rate, voice=session.voice, language=session.language
            )
            async with aclosing(speech):
                async for piece in speech:
                    for chunk in split_audio(piece.pcm, session.sample_rate):
                        await self._send_audio(chunk, session.sample_rate)
                    if piece.words:
                        await self._connection.send_json(
                            output_alignment(piece.words, self._session_id)
                        )
        await self._connection.send_json(done(self._session_id))

    async def _send_audio(self, pcm: bytes, sample_rate: int) -> None:
        if await self._connection.send_json(output_audio(pcm, self._session_id)):
            self._connection.count(audio_out=seconds_of(pcm, sample_rate))

    async def _send_error(self, text: str, code: int) -> None:
        await self._connection.send_json(error(text, code, self._session_id))
