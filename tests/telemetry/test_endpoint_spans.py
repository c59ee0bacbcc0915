"""Which of several endpoints served is in the spans and the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from helpers.canary import assert_clean
from helpers.exported import Exported, attributes_of
from helpers.pair import Pair, echoed, failed, open_pair

from agent_conn import InferenceConnection
from agent_conn.gateway import Reject

CONNECTION = "agent_conn.connection"


@pytest.fixture
async def pair(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Pair]:
    async with open_pair(tls=False) as opened:
        yield opened


async def test_spans_and_metrics_tell_the_endpoint_that_served(
    pair: Pair, exported: Exported
) -> None:
    pair.near.inject(Reject(503))
    served = await echoed(pair.dial(**exported.options()))
    assert served == pair.far.url("/v1/echo")
    for span in (*exported.spans(), *exported.spans(CONNECTION)):
        told = attributes_of(span)
        assert told["agent_conn.endpoint"] == served
        assert (told["server.port"], told["url.path"]) == (pair.far.port, "/v1/echo")
        assert_clean([repr(told)])
    assert attributes_of(exported.spans()[0])["agent_conn.dials"] == 2
    points = [dict(point.attributes or {}) for _, point in exported.points()]
    assert points
    for point in points:
        assert point["server.port"] == pair.far.port
        assert "agent_conn.endpoint" not in point


async def test_a_failed_span_tells_the_endpoint_of_its_error(
    pair: Pair, exported: Exported
) -> None:
    pair.near.inject(Reject(503))
    pair.far.inject(Reject(401))
    error = await failed(pair.dial(**exported.options()))
    (span,) = exported.spans()
    told = attributes_of(span)
    assert told["agent_conn.endpoint"] == pair.far.url("/v1/echo")
    assert told["http.response.status_code"] == 401
    assert pair.far.url("/v1/echo") in str(error)


async def test_a_url_alone_gives_no_endpoint(pair: Pair, exported: Exported) -> None:
    url = pair.near.url("/v1/echo")
    async with InferenceConnection(pair.session, url, **exported.options()):
        pass
    assert "agent_conn.endpoint" not in attributes_of(exported.spans()[0])
