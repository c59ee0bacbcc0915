"""``get_inference_headers`` answers as LiveKit's, whose cases these are, and guards the ids."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_support import NativeSide, fake_job, livekit_headers, mock_room
from livekit import rtc

from agent_conn.integrations.livekit import get_inference_headers

SESSION = "X-LiveKit-Session-ID"


class Context:
    """As much of a job's context as LiveKit's function looks at."""

    def __init__(self, *, connected: bool, sid: object = "PA_1", **headers: str) -> None:
        self.job = SimpleNamespace(id="AJ_1", room=SimpleNamespace(sid="RM_1"))
        self.room = SimpleNamespace(isconnected=lambda: connected)
        self.inference_headers = {name.replace("_", "-"): headers[name] for name in headers}
        self._sid = sid

    @property
    def agent(self) -> Any:
        if not self.room.isconnected():
            raise Exception("cannot access local participant before connecting")  # noqa: TRY002
        return SimpleNamespace(sid=self._sid)


def both(monkeypatch: pytest.MonkeyPatch, ctx: object, **options: Any) -> dict[str, str]:
    """Our answer, after a look that LiveKit's is the same but for the fresh session id."""
    monkeypatch.setattr("livekit.agents.job.get_job_context", lambda: ctx)
    ours, theirs = get_inference_headers(**options), livekit_headers(**options)
    assert ours[SESSION].startswith("inference_")
    assert len(ours[SESSION]) == len(theirs[SESSION])
    assert ours[SESSION] != get_inference_headers(**options)[SESSION]
    without = {name: value for name, value in ours.items() if name != SESSION}
    assert without == {name: value for name, value in theirs.items() if name != SESSION}
    return ours


def test_before_the_room_connects_the_agents_id_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers = both(monkeypatch, Context(connected=False))
    assert headers["X-LiveKit-Room-ID"] == "RM_1"
    assert headers["X-LiveKit-Job-ID"] == "AJ_1"
    assert "X-LiveKit-Agent-ID" not in headers
    assert headers["User-Agent"].startswith("LiveKit Agents/1.8")


def test_in_a_connected_room_all_three_ids_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = both(monkeypatch, Context(connected=True))
    assert headers["X-LiveKit-Agent-ID"] == "PA_1"
    assert headers["X-LiveKit-Room-ID"] == "RM_1"
    assert headers["X-LiveKit-Job-ID"] == "AJ_1"


@pytest.mark.parametrize("sid", [object(), "", None, 7])
def test_a_sid_that_is_no_text_or_empty_is_left_out(
    monkeypatch: pytest.MonkeyPatch, sid: object
) -> None:
    headers = both(monkeypatch, Context(connected=True, sid=sid))
    assert "X-LiveKit-Agent-ID" not in headers
    assert headers["X-LiveKit-Room-ID"] == "RM_1"


@pytest.mark.parametrize("inference_class", [None, "priority", "low"])
def test_outside_a_job_there_is_the_user_agent_and_the_class(inference_class: str | None) -> None:
    headers = get_inference_headers(inference_class=inference_class)
    assert headers == livekit_headers(inference_class=inference_class)
    assert headers.get("X-LiveKit-Inference-Priority") == inference_class


def test_a_jobs_own_headers_win_over_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = Context(connected=True, X_LiveKit_Inference_Priority="low", X_Mine="1")
    headers = both(monkeypatch, ctx, inference_class="priority")
    assert headers["X-LiveKit-Inference-Priority"] == "low"
    assert headers["X-Mine"] == "1"


def test_the_workers_token_goes_along_in_a_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_WORKER_TOKEN", "worker-token")
    assert get_inference_headers() == livekit_headers()
    headers = both(monkeypatch, Context(connected=False))
    assert headers["X-LiveKit-Worker-Token"] == "worker-token"


async def test_a_real_context_is_read_the_same_through_a_rooms_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = rtc.Room()
    with NativeSide().installed(), fake_job(room) as ctx:
        assert "X-LiveKit-Agent-ID" not in both(monkeypatch, ctx)
        await room.connect("ws://unused", "one")
        assert both(monkeypatch, ctx)["X-LiveKit-Agent-ID"] == "PA_one"
        await room.disconnect()
        assert "X-LiveKit-Agent-ID" not in both(monkeypatch, ctx)
    with fake_job(mock_room()) as ctx:
        assert "X-LiveKit-Agent-ID" not in both(monkeypatch, ctx)


def test_a_job_cannot_replace_an_id_or_break_a_header(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ctx = Context(
        connected=True,
        x_livekit_agent_id="PA_forged",
        x_livekit_session_id="forged",
        authorization="Bearer forged",
        X_Broken="a\r\nb: forged",
        x_livekit_inference_priority="low",
    )
    monkeypatch.setattr("livekit.agents.job.get_job_context", lambda: ctx)
    headers = get_inference_headers(inference_class="priority")
    assert "forged" not in "".join(headers.values())
    assert headers["X-LiveKit-Agent-ID"] == "PA_1"
    assert len({name.lower() for name in headers}) == len(headers)
    assert headers["x-livekit-inference-priority"] == "low"
    ignored = [vars(record)["header"] for record in caplog.records]
    assert ignored == ["x-livekit-agent-id", "x-livekit-session-id", "authorization", "X-Broken"]
    assert "forged" not in caplog.text


def test_a_double_without_headers_of_its_own_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ctx = Context(connected=True)
    del ctx.inference_headers
    monkeypatch.setattr("livekit.agents.job.get_job_context", lambda: ctx)
    assert get_inference_headers()["X-LiveKit-Agent-ID"] == "PA_1"


def test_the_session_id_is_made_as_livekit_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = Context(connected=False)
    monkeypatch.setattr("livekit.agents.job.get_job_context", lambda: ctx)
    # As LiveKit's own tests of these headers do.
    monkeypatch.setattr("livekit.agents.inference._utils.shortuuid", lambda prefix: f"{prefix}7")
    assert get_inference_headers()[SESSION] == "inference_7"
    monkeypatch.setattr("livekit.agents.inference.stt.get_inference_headers", get_inference_headers)
    assert get_inference_headers()[SESSION] == "inference_7"
    monkeypatch.delattr("livekit.agents.inference.stt.get_inference_headers")
    assert get_inference_headers()[SESSION].startswith("inference_")
