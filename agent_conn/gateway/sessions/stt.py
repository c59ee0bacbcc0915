"""One speech-to-text session on an open connection."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable

from aiohttp import hdrs

from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.protocol import (
    BAD_MESSAGE,
    ENGINE_FAILED,
    ClientMessage,
    InputAudio,
    Kind,
    ProtocolError,
    SessionClose,
    SessionFinalize,
    SessionUpdate,
    SttCreate,
    error,
    parse_client_message,
    seconds_of,
    session_closed,
    session_created,
    session_finalized,
    start_of_speech,
    to_json,
    transcript_message,
)
from agent_conn.gateway.speech.engine import (
    Recognizer,
    SpeechEngine,
    SpeechFailed,
    SpeechUnavailable,
    Transcript,
)

# These end their input by a session.finalize, and then wait for the gateway to close.
FINALIZING_CLIENT = re.compile(r"LiveKit Agents/1\.8\.[0-3]\b")
QUIET_SECONDS = 0.5

log: logging.Logger = logging.getLogger("agent_conn.gateway")


class SttSession:
    """Feeds the connection's audio to a recogniser and sends what it hears."""

    def __init__(self, connection: Connection, engine: SpeechEngine, session_id: str) -> None:
        self._connection = connection
        self._engine = engine
        self._session_id = session_id
        self._created: SttCreate | None = None
        self._recognizer: Recognizer | None = None
        self._in_speech = False
        self._finalized = False
        user_agent = connection.handshake.headers.get(hdrs.USER_AGENT, "")
        self._ends_by_finalize = FINALIZING_CLIENT.match(user_agent) is not None

    async def run(self) -> None:
        """Serve the session until either side ends it.

        Raises:
            ConnectionError: the peer went away while something was sent.
        """
        try:
            while (text := await self._next_message()) is not None:
                if not await self._serve(text):
                    await self._connection.close()
                    return
        finally:
            await self._release()

    async def _next_message(self) -> str | bytes | None:
        # A finalize may also end one turn of many: then more audio follows soon.
        quiet = QUIET_SECONDS if self._ends_by_finalize and self._finalized else None
        self._finalized = False
        try:
            async with asyncio.timeout(quiet):
                return await self._connection.receive()
        except TimeoutError:
            return to_json(SessionClose())

    async def _serve(self, text: str | bytes) -> bool:
        try:
            return await self._dispatch(parse_client_message(text, Kind.STT))
        except ProtocolError as mistake:
            await self._send_error(str(mistake), BAD_MESSAGE)
        except (SpeechFailed, SpeechUnavailable) as failure:
            log.warning("gateway.engine_failed", extra={"error": type(failure).__name__})
            await self._release()
            await self._send_error(str(failure), ENGINE_FAILED)
        return True

    async def _dispatch(self, message: ClientMessage) -> bool:
        match message:
            case SttCreate():
                if self._created is not None:
                    raise ProtocolError("the session exists already")
                self._created = message
                await self._connection.send_json(session_created(self._session_id))
            case InputAudio(pcm=pcm):
                rate = self._require_session().sample_rate
                self._connection.count(audio_in=seconds_of(pcm, rate))
                await self._send_transcripts(await self._listen().feed(pcm))
            case SessionFinalize():
                await self._send_transcripts(await self._listen().finalize())
                await self._connection.send_json(session_finalized(self._session_id))
                self._finalized = True
            case SessionUpdate(language=language):
                await self._change_language(language)
            case SessionClose():
                if self._recognizer is not None:
                    await self._send_transcripts(await self._recognizer.finalize())
                await self._connection.send_json(session_closed(self._session_id))
                return False
        return True

    def _require_session(self) -> SttCreate:
        if self._created is None:
            raise ProtocolError("session.create must come first")
        return self._created

    def _listen(self) -> Recognizer:
        session = self._require_session()
        if self._recognizer is None:
            self._recognizer = self._engine.recognizer(session.sample_rate, session.language)
        return self._recognizer

    async def _change_language(self, language: str | None) -> None:
        session = self._require_session()
        if language is None or language == session.language:
            return
        if self._recognizer is not None:
            await self._send_transcripts(await self._recognizer.finalize())
        await self._release()
        self._created = SttCreate(session.sample_rate, language, session.model)

    async def _send_transcripts(self, transcripts: Iterable[Transcript]) -> None:
        for transcript in transcripts:
            if not self._in_speech:
                await self._connection.send_json(start_of_speech(self._session_id))
            self._in_speech = not transcript.final
            await self._connection.send_json(transcript_message(transcript, self._session_id))

    async def _send_error(self, text: str, code: int) -> None:
        await self._connection.send_json(error(text, code, self._session_id))

    async def _release(self) -> None:
        recognizer, self._recognizer = self._recognizer, None
        if recognizer is not None:
            await recognizer.aclose()
