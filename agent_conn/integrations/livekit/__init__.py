"""LiveKit Agents: ``attribute_job`` attributes everything that a job dials.

``pip install 'agent-conn[livekit]'``. In a job's entrypoint::

    attribute_job(ctx)

After that, each class of ``livekit.agents.inference`` behaves as follows:

- ``STT``, ``TTS``, ``TurnDetector`` (``/eot``), ``AdaptiveInterruptionDetector``
  (``/bargein``), ``DecisionModel``, ``RealtimeModel`` and ``DuplexModel`` use the job's session.
  Their dials wait for the room and carry every id. This includes those that ``AgentSession``
  makes by itself or from a model's string. It does not include one that was given an
  ``http_session=`` of its own.
- ``AvatarSession`` opens a session of its own for each request. Pass it
  ``http_session=livekit.agents.utils.http_context.http_session()``.
- ``LLM`` has an HTTP client of its own. It does not wait. It carries every id once the room is
  connected, and ``AgentSession`` connects the room before a user's first turn.
- ``VAD`` dials nothing.

A ``TTS`` keeps its websockets for up to 300 s, under the ids that they were opened with. When
the server restarts, the agent gets another id up to 3 s after ``reconnected``. No event tells of
it, and the SDK still gives the old room's sid. So a dial after that carries the new agent's id
and the old room's.
"""

try:
    import livekit.agents
    import livekit.api  # noqa: F401  (asked for here, to say what is missing)
except ImportError as _error:
    raise ImportError(
        "agent_conn.integrations.livekit needs LiveKit Agents: pip install 'agent-conn[livekit]'"
    ) from _error

from agent_conn.integrations.livekit.attribution import JobAttribution, attribute_job
from agent_conn.integrations.livekit.errors import UnsupportedLiveKit, to_api_error
from agent_conn.integrations.livekit.gateway import (
    ConnectionOptions,
    inference_connection,
    inference_token,
)
from agent_conn.integrations.livekit.headers import get_inference_headers
from agent_conn.integrations.livekit.job import job_identity, room_connected

__all__ = [
    "ConnectionOptions",
    "JobAttribution",
    "UnsupportedLiveKit",
    "attribute_job",
    "get_inference_headers",
    "inference_connection",
    "inference_token",
    "job_identity",
    "room_connected",
    "to_api_error",
]
