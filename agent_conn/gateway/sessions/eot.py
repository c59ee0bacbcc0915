"""One end-of-turn session: every turn is predicted to have ended, with a fixed probability.

Messages are binary `ClientMessage` and `ServerMessage` of livekit-protocol's
`agent_pb/agent_inference.proto`, whose field numbers stand below.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from agent_conn.gateway.sessions.connection import Connection
from agent_conn.gateway.sessions.protobuf import Value, field, read_fields
from agent_conn.gateway.sessions.protocol import BAD_MESSAGE, ProtocolError

THRESHOLD = 0.5
"""The default threshold of every language: a client takes more for the end of the turn."""
LANGUAGE = "en"
BACKCHANNEL_PROBABILITY = 0.0
CREATED_AT = 1


class ClientContent(IntEnum):
    """What a `ClientMessage` holds, by field number."""

    SESSION_CREATE = 2
    INPUT_AUDIO = 3
    SESSION_FLUSH = 4
    SESSION_CLOSE = 5
    INFERENCE_START = 6
    INFERENCE_STOP = 7


CLIENT_CONTENT = {int(kind): kind for kind in ClientContent}


class ServerContent(IntEnum):
    """What a `ServerMessage` holds, by field number."""

    REQUEST_ID = 2
    CLIENT_CREATED_AT = 3
    SESSION_CREATED = 4
    INFERENCE_STARTED = 5
    INFERENCE_STOPPED = 6
    SESSION_CLOSED = 7
    ERROR = 8
    EOT_PREDICTION = 9


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One message of the client; `kind` is None for one that this gateway has no use for."""

    kind: ClientContent | None
    payload: bytes
    created_at: bytes
    """The client's `Timestamp`, as it was sent."""


def parse_eot_message(data: str | bytes) -> ClientMessage:
    """Read a `ClientMessage`.

    Raises:
        ProtocolError: it is not one.
    """
    if isinstance(data, str):
        raise ProtocolError("the message must be binary protobuf")
    kind, payload, created_at = None, b"", b""
    for number, value in read_fields(data):
        if number == CREATED_AT:
            created_at = _message(value)
        elif number in CLIENT_CONTENT:
            kind, payload = CLIENT_CONTENT[number], _message(value)
    return ClientMessage(kind, payload, created_at)


class EotSession:
    """Answers every request for a prediction with `probability` that the turn has ended."""

    def __init__(self, connection: Connection, probability: float) -> None:
        self._connection = connection
        self._probability = probability
        self._created = False
        self._heard_at = b""

    async def run(self) -> None:
        """Serve the session until either side ends it.

        Raises:
            ConnectionError: the peer went away while something was sent.
        """
        async for data in self._connection:
            try:
                message = parse_eot_message(data)
                if message.kind is ClientContent.SESSION_CLOSE:
                    await self._tell(ServerContent.SESSION_CLOSED, b"", message)
                    await self._connection.close()
                    return
                await self._serve(message)
            except ProtocolError as mistake:
                error = field(1, str(mistake)) + field(2, BAD_MESSAGE)
                await self._connection.send(field(ServerContent.ERROR, error))

    async def _serve(self, message: ClientMessage) -> None:
        match message.kind:
            case ClientContent.SESSION_CREATE:
                if self._created:
                    raise ProtocolError("the session exists already")
                self._created = True
                await self._tell(ServerContent.SESSION_CREATED, _default_thresholds(), message)
            case ClientContent.INPUT_AUDIO:
                self._require_session()
                self._heard_at = message.created_at
            case ClientContent.INFERENCE_START:
                self._require_session()
                request_id = _request_id(message.payload)
                await self._tell(ServerContent.INFERENCE_STARTED, b"", message, request_id)
                prediction = self._prediction(message)
                await self._tell(ServerContent.EOT_PREDICTION, prediction, message, request_id)
            case ClientContent.INFERENCE_STOP:
                request_id = _request_id(message.payload)
                await self._tell(ServerContent.INFERENCE_STOPPED, b"", message, request_id)

    def _require_session(self) -> None:
        if not self._created:
            raise ProtocolError("session_create must come first")

    def _prediction(self, message: ClientMessage) -> bytes:
        latest = self._heard_at or message.created_at
        stats = field(1, latest) + field(2, latest) + field(3, b"") + field(4, b"")
        return field(1, self._probability) + field(2, stats) + field(4, BACKCHANNEL_PROBABILITY)

    async def _tell(
        self, kind: ServerContent, payload: bytes, message: ClientMessage, request_id: str = ""
    ) -> None:
        await self._connection.send(
            field(ServerContent.REQUEST_ID, request_id)
            + field(ServerContent.CLIENT_CREATED_AT, message.created_at)
            + field(kind, payload)
        )


def _default_thresholds() -> bytes:
    by_language = field(1, LANGUAGE) + field(2, THRESHOLD)
    return field(1, by_language) + field(2, THRESHOLD) + field(3, by_language) + field(4, THRESHOLD)


def _request_id(payload: bytes) -> str:
    for number, value in read_fields(payload):
        if number == 1:
            return _message(value).decode(errors="replace")
    return ""


def _message(value: Value) -> bytes:
    if isinstance(value, int):
        raise ProtocolError("the message has a number in the place of a protobuf message")
    return value
