"""What must hold of every input that is read without a socket."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import odd_input as odd
from hypothesis import strategies as st

from agent_conn import (
    AgentIdentity,
    AttributionLevel,
    ConfigurationError,
    HeaderNames,
    RetryPolicy,
)
from agent_conn._dial.translate import MAX_BODY, read_retry_after, rejected
from agent_conn._options import check_headers, check_seconds, check_url
from agent_conn._secrets import Secrets
from agent_conn.gateway import FAULTS, Fault, InvalidToken, mint_token, verify_token
from agent_conn.gateway.sessions.protocol import Kind, ProtocolError, parse_client_message, to_json

KEY, SECRET = "fuzz-key", "fuzz-secret-of-thirty-two-bytes!!"


def assert_plain(text: str) -> None:
    """A terminal, a log and a page can show ``text`` as it is."""
    assert text.isascii()
    assert_one_line(text)


def assert_one_line(text: str) -> None:
    """``text`` takes one line, though it may have what the peer says in its own language."""
    assert text.isprintable()


@st.composite
def id_sources(draw: st.DrawFn) -> Any:
    value = draw(odd.anything)

    def give() -> Any:
        return value

    def refuse() -> Any:
        raise draw(st.sampled_from([ValueError, KeyError, OSError]))(value)

    return draw(st.sampled_from([value, give, refuse]))


def identity(ids: Mapping[str, Any]) -> None:
    """Ids never raise: each is sendable or left out, for a reason that does not quote it."""
    made = AgentIdentity.best_effort(**ids)
    sent = made.headers()
    for name, header in zip(
        ("job_id", "room_id", "agent_id"), HeaderNames().all()[:3], strict=True
    ):
        value = getattr(made, name)
        if value is None:
            assert_plain(made.omitted[name])
            assert header not in sent
        else:
            assert sent[header] == value
            assert_plain(value)
            assert 0 < len(value) <= 256
    assert (made.level is AttributionLevel.NONE) == (not sent)


def header_names(names: Mapping[str, Any]) -> None:
    """Names are field names or refused."""
    try:
        made = HeaderNames(**names)
    except ConfigurationError as error:
        assert_plain(str(error))
    else:
        assert all(name.isascii() and name.isprintable() and " " not in name for name in made.all())


def caller_headers(headers: Any) -> None:
    """Headers can be sent or are refused, and then no value is told."""
    try:
        checked = check_headers(headers, HeaderNames().all())
    except ConfigurationError as error:
        assert_plain(str(error))
    else:
        for name, value in checked.items():
            assert_plain(name + value)


def url(value: Any) -> None:
    """A URL is usable or refused, and then nothing of it is told."""
    try:
        parsed = check_url(value)
    except ConfigurationError as error:
        assert_plain(str(error))
        if isinstance(value, str) and len(value) > 12:
            assert value not in str(error)
    else:
        assert parsed.host
        assert parsed.user is None
        assert parsed.port is None or 0 <= parsed.port < 65536
        str(parsed.origin()).encode("ascii")


@st.composite
def urls(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        return draw(odd.scalar)
    part = (
        odd.text | odd.ascii_text | st.sampled_from(["gateway.example", "::1", "[::1]", "0x7f.1"])
    )
    scheme = draw(st.sampled_from(["wss", "ws", "https", "http", "ftp", "WSS", ""]) | part)
    port = draw(st.sampled_from(["", ":443", ":0", ":65536", ":-1", ":a"]) | st.just(":"))
    return f"{scheme}://{draw(part)}{port}/{draw(part)}?key={draw(part)}"


def seconds(value: Any) -> None:
    """A length of time is a finite float, or refused."""
    try:
        checked = check_seconds("open_timeout", value, zero=True)
    except ConfigurationError as error:
        assert_plain(str(error))
    else:
        assert 0 <= checked < math.inf


def retry_policy(values: Mapping[str, Any]) -> None:
    """A policy is refused or gives ceilings within its cap."""
    try:
        policy = RetryPolicy(**values)
    except ConfigurationError as error:
        assert_plain(str(error))
        return
    ceilings = policy.ceilings()
    for _ in range(50):
        assert 0 <= next(ceilings) <= float(policy.cap)


def rejection(answer: tuple[int, Mapping[str, str], bytes]) -> None:
    """An HTTP error of any content becomes the typed error, of bounded size."""
    status, headers, body = answer
    error = rejected(status, headers, body, Secrets(lambda: ["a-secret-that-was-sent"]))
    assert_one_line(str(error))
    assert len(error.body) <= MAX_BODY
    assert "a-secret-that-was-sent" not in f"{error} {error.body} {error.headers} {error.quota}"
    if error.quota is not None:
        for told in (error.quota.hint, error.quota.quota_type, error.quota.documentation_url):
            assert told is None or isinstance(told, str)
    after = error.retry_after
    assert after is None or (after >= 0 and math.isfinite(after))
    repr(error)


def retry_after(headers: Mapping[str, str]) -> None:
    """Seconds or nothing, whatever the header says."""
    seconds = read_retry_after(headers)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


def client_message(sent: tuple[str | bytes, Kind]) -> None:
    """A message is read, or breaks the protocol; what was read can be written again."""
    raw, kind = sent
    try:
        message = parse_client_message(raw, kind)
    except ProtocolError as error:
        assert_plain(str(error))
    else:
        assert parse_client_message(to_json(message), kind) == message


def bearer_token(token: str) -> None:
    """No text but a token of the key and secret is taken."""
    try:
        verify_token(token, KEY, SECRET)
    except InvalidToken as refused:
        assert_plain(str(refused))
    else:
        raise AssertionError("a made-up token was taken")


@st.composite
def tokens(draw: st.DrawFn) -> str:
    """Made-up ones, and real ones with a part replaced."""
    if draw(st.booleans()):
        return draw(odd.text)
    parts = mint_token(KEY, SECRET).split(".")
    parts[draw(st.integers(0, 2))] = draw(odd.text | odd.ascii_text)
    return ".".join(parts)


def fault(made_of: tuple[type[Fault], list[Any]]) -> None:
    """A fault is refused where it is made, or can strike."""
    kind, values = made_of
    names = [item.name for item in fields(kind)]
    try:
        made = kind(**dict(zip(names, values, strict=False)))
    except ConfigurationError as error:
        assert_plain(str(error))
    else:
        assert made == replace(made)


_answer_headers = st.dictionaries(
    st.sampled_from(
        ["Retry-After", "Date", "X-LiveKit-Inference-RPM-Limit", "x-livekit-inference-", "Server"]
    ),
    odd.text
    | odd.ascii_text
    | st.sampled_from(["Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 9999 07:28:00 -2359"])
    | st.integers().map(str),
    max_size=4,
)
_quota_body = st.dictionaries(
    st.sampled_from(["hint", "quota_type", "category", "remaining_limit", "documentation_url"]),
    odd.json_value,
).map(lambda told: json.dumps(told).encode())
_body = st.binary(max_size=100) | _quota_body | odd.json_value.map(lambda v: json.dumps(v).encode())
_type = st.sampled_from(
    ["session.create", "input_audio", "session.update", "input_transcript", "session.flush"]
)
_message = st.fixed_dictionaries(
    {"type": _type | odd.text},
    optional={
        "settings": st.fixed_dictionaries(
            {},
            optional={
                "sample_rate": odd.json_value | st.integers(0, 10**6).map(str),
                "encoding": odd.json_value | st.just("pcm_s16le"),
                "language": odd.json_value,
            },
        )
        | odd.json_value,
        "audio": odd.json_value | st.just("AAAA"),
        "transcript": odd.json_value,
        "sample_rate": odd.json_value,
        "model": odd.json_value,
    },
).map(json.dumps)
messages: st.SearchStrategy[str | bytes] = st.one_of(
    _message, odd.json_value.map(json.dumps), odd.text, st.binary(max_size=60)
)

PROPERTIES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "identity": (
        identity,
        st.fixed_dictionaries(
            {}, optional={name: id_sources() for name in ("job_id", "room_id", "agent_id")}
        ),
    ),
    "header_names": (
        header_names,
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(("job_id", "room_id", "agent_id", "session_id"), odd.anything),
        ),
    ),
    "caller_headers": (
        caller_headers,
        st.dictionaries(odd.text | odd.ascii_text, odd.scalar, max_size=4) | odd.anything,
    ),
    "url": (url, urls()),
    "seconds": (seconds, odd.anything),
    "retry_policy": (
        retry_policy,
        st.fixed_dictionaries(
            {},
            optional={
                name: odd.scalar | st.floats(0, 1e308)
                for name in (
                    "attempts",
                    "initial",
                    "cap",
                    "classify",
                    "restart_spread",
                    "share_health",
                )
            },
        ),
    ),
    "rejection": (rejection, st.tuples(st.integers(400, 999), _answer_headers, _body)),
    "retry_after": (retry_after, _answer_headers),
    "client_message": (client_message, st.tuples(messages, st.sampled_from(Kind))),
    "bearer_token": (bearer_token, tokens()),
    "fault": (
        fault,
        st.tuples(
            st.sampled_from(FAULTS),
            st.lists(st.integers(0, 6000) | odd.anything, min_size=1, max_size=3),
        ),
    ),
}
