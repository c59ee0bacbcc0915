"""A speech-to-text plugin for LiveKit Agents, on `inference_connection`.

In a job's entrypoint: `AgentSession(stt=GatewaySTT(), ...)`. LiveKit's base class asks a
plugin for `_run`, and hands it its audio and takes its events through `_input_ch` and
`_event_ch`: they are how a plugin is written.
"""

from __future__ import annotations

import base64
from typing import Any

import aiohttp
from duplex import GatewayError, converse, receive
from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    APIConnectOptions,
    APIError,
    LanguageCode,
    stt,
    utils,
)

from agent_conn import AgentConnError
from agent_conn.integrations.livekit import inference_connection, to_api_error

SAMPLE_RATE = 16_000
SESSION = {"sample_rate": str(SAMPLE_RATE), "encoding": "pcm_s16le", "extra": {}}
KINDS = {
    "interim_transcript": stt.SpeechEventType.INTERIM_TRANSCRIPT,
    "final_transcript": stt.SpeechEventType.FINAL_TRANSCRIPT,
}


class GatewaySTT(stt.STT[Any]):
    """Hears through the inference gateway; `options` go to `inference_connection`."""

    def __init__(self, *, model: str = "auto", **options: Any) -> None:  # noqa: ANN401
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=True, offline_recognize=False
            )
        )
        self.options = {"model": model, **options}

    def stream(
        self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS, **_: object
    ) -> GatewayStream:
        """Begin to listen."""
        return GatewayStream(stt=self, conn_options=conn_options, sample_rate=SAMPLE_RATE)

    async def _recognize_impl(self, *_: object, **__: object) -> stt.SpeechEvent:
        raise NotImplementedError("the gateway hears streams alone")


class GatewayStream(stt.RecognizeStream):
    """One stream; LiveKit runs `_run` again where the error that it raises is retryable."""

    async def _run(self) -> None:
        options = self._stt.options if isinstance(self._stt, GatewaySTT) else {}
        timeout = self._conn_options.timeout
        try:
            connection = inference_connection(
                "stt", on_open=_create_session, open_timeout=timeout, **options
            )
            async with connection as ws:
                await converse(connection, self._read(connection), self._write(ws))
        except AgentConnError as error:
            raise to_api_error(error) from error
        except GatewayError as error:
            raise APIError(str(error), body={"code": error.code}) from error

    async def _read(self, connection: Any) -> None:  # noqa: ANN401
        while (message := await receive(connection)) is not None:
            if kind := KINDS.get(message.get("type", "")):
                language = LanguageCode(message.get("language") or "en")
                heard = stt.SpeechData(language=language, text=message["transcript"])
                self._event_ch.send_nowait(stt.SpeechEvent(type=kind, alternatives=[heard]))

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        chunks = utils.audio.AudioByteStream(SAMPLE_RATE, 1, SAMPLE_RATE // 20)
        async for item in self._input_ch:
            heard = item if isinstance(item, rtc.AudioFrame) else None
            for frame in chunks.push(heard.data) if heard else chunks.flush():
                audio = base64.b64encode(frame.data).decode()
                await ws.send_json({"type": "input_audio", "audio": audio})
            if not heard:
                await ws.send_json({"type": "session.finalize"})
        await ws.send_json({"type": "session.finalize"})
        await ws.send_json({"type": "session.close"})


async def _create_session(ws: aiohttp.ClientWebSocketResponse) -> None:
    await ws.send_json({"type": "session.create", "settings": SESSION})
