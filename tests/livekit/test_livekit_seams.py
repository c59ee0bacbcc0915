"""What `attribute_job` refuses at once: wrong arguments, no job, a LiveKit that lacks a seam."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_support import Running, fake_job
from livekit import rtc
from livekit.agents import utils as livekit_utils

from agent_conn import ConfigurationError
from agent_conn.integrations.livekit import UnsupportedLiveKit, attribute_job


@pytest.mark.parametrize("wait", [-1, 9.5, None, "8", float("nan"), True])
async def test_a_wait_that_leaves_no_time_to_dial_is_refused(running: Running, wait: Any) -> None:
    with pytest.raises(ConfigurationError, match="connect_wait must be"):
        attribute_job(connect_wait=wait)
    assert running.session.trace_configs == []


async def test_outside_of_a_job_or_for_another_there_is_an_error(running: Running) -> None:
    wrong = "ctx must be the job that this code runs in"
    with fake_job(rtc.Room(), "AJ_inner"), pytest.raises(ConfigurationError, match=wrong):
        attribute_job(running.ctx)
    with pytest.raises(ConfigurationError, match=wrong):
        attribute_job(object())  # type: ignore[arg-type]


def test_without_a_job_there_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="ctx must be a running job"):
        attribute_job()


async def test_in_a_thread_without_an_event_loop_there_is_an_error(running: Running) -> None:
    with pytest.raises(ConfigurationError, match="whose event loop runs"):
        await asyncio.to_thread(attribute_job)


def _without_http_session(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(livekit_utils.http_context, "http_session")


def _with_another_client(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(livekit_utils.http_context, "http_session", object)


def _without_trace_configs(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(aiohttp.ClientSession, "trace_configs")


def _with_a_copy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(aiohttp.ClientSession, "trace_configs", property(lambda _: []))


def _with_other_header_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "livekit.agents.inference.stt.get_inference_headers", lambda: {"X-LK-Job": "AJ_1"}
    )


@pytest.mark.parametrize(
    ("breaking", "named"),
    [
        (_without_http_session, r"http_session\(\) does not exist"),
        (_with_another_client, r"http_session\(\) does not give an aiohttp.ClientSession"),
        (_without_trace_configs, "no list of trace_configs"),
        (_with_a_copy, "trace_configs of http_session.. are a copy"),
        (_with_other_header_names, "name the job by the header X-LiveKit-Job-ID"),
    ],
)
async def test_a_seam_that_upstream_breaks_is_named_at_once(
    running: Running, monkeypatch: pytest.MonkeyPatch, breaking: Any, named: str
) -> None:
    with monkeypatch.context() as patch:
        breaking(patch)
        with pytest.raises(UnsupportedLiveKit, match=named) as told:
            attribute_job()
    assert "livekit-agents 1." in str(told.value)
