"""What the gateway serves at which path, and what it only knows by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.answers import cut_short
from agent_conn.gateway.faults.kinds import Fault
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.sockets import PeerSocket
from agent_conn.gateway.sessions.bargein import BargeinSession
from agent_conn.gateway.sessions.chat import CHAT_PATH, ChatService, ScriptedChat
from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.decisions import DECISIONS_PATH, ScriptedDecisions
from agent_conn.gateway.sessions.eot import EotSession
from agent_conn.gateway.sessions.stt import SttSession
from agent_conn.gateway.sessions.tts import TtsSession
from agent_conn.gateway.speech.engine import SpeechEngine
from agent_conn.gateway.speech.scripted import ScriptedEngine

MODELS_PATH = "/v1/models"
WEBSOCKETS = ("/v1/stt", "/v1/tts", "/v1/eot", "/v1/bargein", "/v1/echo")
REQUESTS = (CHAT_PATH, DECISIONS_PATH, MODELS_PATH)
NOT_IMPLEMENTED = (
    "/v1/realtime",
    "/v1/live/sessions",
    "/v1/avatar/sessions",
    "/v1/avatar/sessions/terminate",
)
"""Services of LiveKit's gateway that this one does not have."""
MODELS: dict[str, object] = {
    "object": "list",
    "data": [{"id": "scripted", "object": "model", "created": 0, "owned_by": "agent-conn"}],
}


@dataclass(slots=True)
class Services:
    """Serves what a request asks for, once the request was let in.

    `end_of_turn` and `interruption` are the probabilities of every prediction.

    Raises:
        ConfigurationError: a probability is not from 0 to 1.
    """

    engine: SpeechEngine
    chat: ChatService
    decisions: ScriptedDecisions
    end_of_turn: float
    interruption: float

    def __post_init__(self) -> None:
        for name in ("end_of_turn", "interruption"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigurationError(f"{name} must be a probability from 0 to 1, got {value!r}")

    def knows(self, path: str) -> bool:
        """Whether `path` is served, or is one of LiveKit's that is not."""
        return path in WEBSOCKETS or path in REQUESTS or path in NOT_IMPLEMENTED

    async def answer(
        self,
        request: web.Request,
        peer_socket: PeerSocket,
        handshake: Handshake,
        fault: Fault | None,
    ) -> web.StreamResponse | None:
        """Answer a plain request; None for one that asks for a websocket.

        Raises:
            ConnectionError: the connection is gone.
        """
        if request.path == CHAT_PATH:
            return await self.chat.answer(request, peer_socket, handshake, fault)
        if request.path not in REQUESTS:
            return None
        if request.path == DECISIONS_PATH:
            response = await self.decisions.answer(request)
        elif request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
            response = web.json_response(MODELS)
        else:
            response = web.json_response({"error": "use GET"}, status=405)
            response.headers[hdrs.ALLOW] = hdrs.METH_GET
        await cut_short(fault, peer_socket)
        return response

    async def serve(self, connection: Connection, session_id: str) -> None:
        """Serve an open websocket until it ends.

        Raises:
            ConnectionError: the peer went away while something was sent.
        """
        match connection.path:
            case "/v1/stt":
                await SttSession(connection, self.engine, session_id).run()
            case "/v1/tts":
                await TtsSession(connection, self.engine, session_id).run()
            case "/v1/eot":
                await EotSession(connection, float(self.end_of_turn)).run()
            case "/v1/bargein":
                await BargeinSession(connection, float(self.interruption), session_id).run()
            case _:
                async for message in connection:
                    await connection.send(message)


def make_services(
    engine: SpeechEngine | None,
    chat_replies: Sequence[str],
    end_of_turn: float,
    interruption: float,
) -> Services:
    """Return the services of a gateway, with a scripted engine where `engine` is None.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    return Services(
        engine=engine if engine is not None else ScriptedEngine(),
        chat=ChatService(ScriptedChat(chat_replies)),
        decisions=ScriptedDecisions(),
        end_of_turn=end_of_turn,
        interruption=interruption,
    )
