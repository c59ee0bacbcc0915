"""LiveKit Agents: one line attributes its STT, TTS and LLM, another wires a plugin to its job.

``pip install 'agent-conn[livekit]'``. In a job's entrypoint::

    http_session = attributed_session()
    stt = inference.STT(http_session=http_session)
    tts = inference.TTS(http_session=http_session)
    llm = inference.LLM("openai/gpt-4o", extra_kwargs={"extra_headers": attributed_headers()})
"""

try:
    import livekit.agents
    import livekit.api  # noqa: F401  (asked for here, to say what is missing)
except ImportError as _error:
    raise ImportError(
        "agent_conn.integrations.livekit needs LiveKit Agents: pip install 'agent-conn[livekit]'"
    ) from _error

from agent_conn.integrations.livekit.errors import to_api_error
from agent_conn.integrations.livekit.gateway import (
    ConnectionOptions,
    inference_connection,
    inference_token,
)
from agent_conn.integrations.livekit.headers import attributed_headers, get_inference_headers
from agent_conn.integrations.livekit.job import job_identity, room_connected
from agent_conn.integrations.livekit.session import AttributedSession, attributed_session

__all__ = [
    "AttributedSession",
    "ConnectionOptions",
    "attributed_headers",
    "attributed_session",
    "get_inference_headers",
    "inference_connection",
    "inference_token",
    "job_identity",
    "room_connected",
    "to_api_error",
]
