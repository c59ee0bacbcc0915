"""LiveKit's STT, TTS and LLM with nothing but the environment, as an agent's own process.

It speaks a sentence, hears that audio, asks the LLM, and prints what came as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from livekit import rtc
from livekit.agents import inference, llm, stt
from livekit.agents.utils import http_context

SENTENCE = "hello world"
SAMPLE_RATE = 16_000


async def speak(tts: inference.TTS) -> list[rtc.AudioFrame]:
    async with tts.stream() as stream:
        stream.push_text(SENTENCE)
        stream.end_input()
        return [spoken.frame async for spoken in stream]


async def hear(recognizer: inference.STT, frames: list[rtc.AudioFrame]) -> str:
    async with recognizer.stream() as stream:
        for frame in frames:
            stream.push_frame(frame)
        stream.end_input()
        async for event in stream:
            if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                return event.alternatives[0].text
    return ""


async def ask(model: inference.LLM) -> str:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content=SENTENCE)
    async with model.chat(chat_ctx=context) as stream:
        return "".join([each.delta.content or "" async for each in stream if each.delta])


async def main() -> None:
    async with http_context.open():
        tts = inference.TTS("cartesia/sonic-3", sample_rate=SAMPLE_RATE)
        recognizer = inference.STT("auto", sample_rate=SAMPLE_RATE)
        model = inference.LLM("openai/gpt-4o-mini")
        frames = await speak(tts)
        told = {"heard": await hear(recognizer, frames), "reply": await ask(model)}
        for client in (tts, recognizer, model):
            await client.aclose()
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
