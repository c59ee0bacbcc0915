"""What a peer says is shown whole, or withheld whole where it repeats a secret in any form."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import aiohttp
import pytest
from helpers.support import Line

from agent_conn import HandshakeRejected, InferenceConnection
from agent_conn._secrets import Secrets
from agent_conn.gateway import Reject

SECRET = 'sword&fish "4711" <ümlaut>/x+y='
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "json": json.dumps,
    "json in unicode": lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
    "percent": quote,
    "percent of all": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "form": quote_plus,
    "html": html.escape,
    "html by number": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "html by hex number": lambda text: "".join(f"&#x{ord(each):x};" for each in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of more": lambda text: base64.b64encode(f"Bearer {text}!".encode()).decode(),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64, its start cut": lambda text: base64.b64encode(text.encode()).decode()[3:],
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "json in json": lambda text: json.dumps(json.dumps({"sent": text})),
    "percent in json": lambda text: json.dumps(quote(text)),
    "base64 in json": lambda text: json.dumps(base64.b64encode(text.encode()).decode()),
    "base64 in percent": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
    "its first half": lambda text: text[: len(text) // 2],
    "eight of it": lambda text: text[3:11],
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("around", ["{}", "you sent: {}", '{{"error": "{}"}}', "<p>{}</p>"])
def test_a_secret_is_recognised_in_the_usual_encodings(encoding: str, around: str) -> None:
    secrets = Secrets(lambda: [SECRET])
    text = around.format(ENCODINGS[encoding](SECRET))
    assert secrets.repeated_in(text)
    assert secrets.shown(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "token expired",
        "sword fish",
        "4711",
        '{"error": {"message": "no such model"}}',
        "0" * 4096,
    ],
)
def test_what_repeats_none_is_shown(text: str) -> None:
    assert Secrets(lambda: [SECRET]).shown(text) == text


def test_without_secrets_everything_is_shown() -> None:
    assert Secrets().shown(SECRET) == SECRET


SENT = "a-secret-of-4711"


@pytest.mark.parametrize(
    "options",
    [
        {"token": SENT},
        {"token": lambda: SENT},
        {"headers": {"X-Api-Key": SENT}},
        {"headers": {"User-Agent": SENT}},
        {"headers": lambda: {"X-Api-Key": SENT}},
        {"protocols": [SENT]},
        {"path": f"/v1/echo?key={SENT}"},
        {"trace_headers": lambda _: {"baggage": f"user={SENT}"}},
        {"cookie": SENT},
        {"cookie": f"{SENT}, with a comma"},
        {"default": SENT},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_a_refusal_that_repeats_anything_that_was_sent_tells_none_of_it(
    line: Line, options: dict[str, object]
) -> None:
    arguments = dict(options)
    if "cookie" in arguments:
        line.session.cookie_jar.update_cookies({"session": str(arguments.pop("cookie"))})
    if "default" in arguments:
        line.session.headers["X-Default"] = str(arguments.pop("default"))
    path = str(arguments.pop("path", "/v1/echo"))
    quota = json.dumps({"hint": f"not for {SENT}", "category": SENT}).encode()
    line.gateway.inject(Reject(429, {"X-Echo": SENT, "X-Other": "shown"}, quota))
    with pytest.raises(HandshakeRejected) as refused:
        await line.dial(path, **arguments)
    error = refused.value
    assert SENT not in f"{error} {error!r} {vars(error)}"
    assert "withheld" in str(error)
    assert error.headers["x-other"] == "shown"


async def test_the_ids_and_what_every_request_has_are_no_secrets(
    session: aiohttp.ClientSession, line: Line
) -> None:
    body = b"no agent PA_1234567890 here, Mozilla/websocket permessage-deflate"
    line.gateway.inject(Reject(404, {}, body))
    connection = InferenceConnection(
        session, line.gateway.url("/v1/echo"), compress=True, token="another-4711"
    )
    with pytest.raises(HandshakeRejected) as refused:
        await connection
    assert refused.value.body == body.decode()
