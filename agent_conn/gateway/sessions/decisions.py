"""`POST /v1/decisions`: questions about a conversation, each answered by its first possibility."""

from __future__ import annotations

import uuid
from http import HTTPStatus

from aiohttp import hdrs, web

from agent_conn.gateway.sessions.body import BodyMissing, read_body
from agent_conn.gateway.sessions.protocol import JsonObject, ProtocolError, parse_object

DECISIONS_PATH = "/v1/decisions"


class ScriptedDecisions:
    """Answers yes to a question of probability, else with the first option or level."""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        if request.method != hdrs.METH_POST:
            refused = _error(HTTPStatus.METHOD_NOT_ALLOWED, "use POST")
            refused.headers[hdrs.ALLOW] = hdrs.METH_POST
            return refused
        try:
            asked = _parse(await read_body(request))
            answers = {name: _decide(name, one) for name, one in asked["questions"].items()}
        except ProtocolError as mistake:
            return _error(HTTPStatus.BAD_REQUEST, str(mistake))
        except BodyMissing as missing:
            return _error(HTTPStatus(missing.status), str(missing))
        usage = {"input_tokens": len(asked["state"].split()), "output_tokens": len(answers)}
        return web.json_response(
            {
                "id": f"decision_{uuid.uuid4().hex}",
                "model": asked["model"],
                "answers": answers,
                "usage": usage,
            }
        )


def _parse(body: bytes) -> JsonObject:
    asked = parse_object(body)
    for name in ("model", "state"):
        if not isinstance(asked.get(name), str):
            raise ProtocolError(f"{name} must be a string")
    if not isinstance(asked.get("questions"), dict):
        raise ProtocolError("questions must be an object")
    return asked


def _decide(name: str, question: object) -> JsonObject:
    if not isinstance(question, dict):
        raise ProtocolError(f"question {name!a:.40} must be an object")
    criteria = question.get("criteria")
    match question.get("type"):
        case "noul":
            return {"type": "noul", "noul": 1.0}
        case "choice" if isinstance(criteria, dict) and criteria:
            options = list(criteria)
            return {
                "type": "choice",
                "choice": options[0],
                "probabilities": {option: float(option == options[0]) for option in options},
                "confidence": 1.0,
            }
        case "score" if isinstance(criteria, list) and criteria:
            return {
                "type": "score",
                "score": 0.0,
                "probabilities": {str(level): float(level == 0) for level in range(len(criteria))},
                "legend": criteria,
                "confidence": 1.0,
            }
    raise ProtocolError(f"question {name!a:.40} must be a noul, or a choice or score with criteria")


def _error(status: HTTPStatus, message: str) -> web.Response:
    return web.json_response(
        {"type": "invalid_request", "error": message, "hint": ""}, status=status
    )
