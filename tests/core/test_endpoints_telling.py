"""What is told of several endpoints, and which lists of them are refused."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import aiohttp
import pytest
from helpers.canary import QUERY, TOKEN, assert_clean, told_by
from helpers.pair import Pair, echoed, failed, open_pair
from helpers.support import own_records

from agent_conn import (
    ConfigurationError,
    ConnectError,
    Endpoints,
    HandshakeRejected,
    InferenceConnection,
    StateChanged,
    StateError,
    TokenUnavailable,
)
from agent_conn.gateway import (
    Gateway,
    Reject,
)


@pytest.fixture
async def pair(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Pair]:
    async with open_pair(tls=True) as opened:
        yield opened


async def test_which_endpoint_served_is_told_and_no_query(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[StateChanged] = []
    pair.near.inject(Reject(503))
    connection = pair.dial(token=TOKEN, observer=told.append)
    await echoed(connection)
    pair.near.inject(Reject(401))
    pair.far.inject(Reject(503))
    met = await failed(pair.dial(token=TOKEN))
    assert isinstance(met, HandshakeRejected)
    assert (met.status, met.endpoint) == (401, pair.near.url("/v1/echo"))
    assert told[-1].record.endpoint == str(told[-1].url) == pair.far.url("/v1/echo")
    opened = next(one for one in own_records(caplog) if "connection_opened:" in one.getMessage())
    assert pair.far.url("/v1/echo") in opened.getMessage()
    moved = next(one for one in own_records(caplog) if "endpoint_failed:" in one.getMessage())
    assert pair.near.url("/v1/echo") in moved.getMessage()
    assert_clean([*map(repr, told), repr(connection), str(connection.record), repr(pair.endpoints)])
    assert_clean(told_by(met))
    ours = [one for one in caplog.records if one.name == "agent_conn"]
    for record in ours:
        assert_clean([record.getMessage(), repr(vars(record))])


async def test_what_tells_the_endpoint_is_plain_data(pair: Pair) -> None:
    pair.near.inject(Reject(503))
    pair.far.inject(Reject(503))
    connection = pair.dial()
    met = await failed(connection)
    assert isinstance(met, ConnectError)
    for copied in (pickle.loads(pickle.dumps(met)), copy.deepcopy(met)):
        assert (str(copied), copied.endpoint) == (str(met), met.endpoint)
    assert json.loads(json.dumps(asdict(connection.record)))["endpoint"] == met.endpoint


async def test_a_url_alone_names_no_endpoint(pair: Pair) -> None:
    pair.near.inject(Reject(503))
    connection = InferenceConnection(pair.session, pair.near.url("/v1/echo"))
    met = await failed(connection)
    assert isinstance(met, ConnectError)
    assert (met.endpoint, connection.record.endpoint, connection.endpoints) == (None, None, None)


def test_its_repr_and_current_hide_the_queries() -> None:
    endpoints = Endpoints([f"wss://eu.example/v1?key={QUERY}", f"wss://us.example/v1?key={QUERY}"])
    assert repr(endpoints) == "<Endpoints wss://eu.example/v1, wss://us.example/v1>"
    assert str(endpoints.current) == "wss://eu.example/v1"


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("wss://eu.example", "urls must be a sequence of URLs, got str"),
        (None, "urls must be a sequence of URLs, got None"),
        ([], "urls must be one URL or more, got none"),
        (["wss://eu.example", 7], r"urls\[1\] must be a str or yarl.URL, got int"),
        (["wss://eu.example", lambda: ""], r"urls\[1\] must be a str or yarl.URL, got function"),
        (["ftp://eu.example"], r"urls\[0\] needs a scheme"),
        (["wss://me:secret@eu.example"], r"urls\[0\] must hold no user"),
        (
            ["wss://eu.example/v1?a=1", "wss://eu.example/v1?a=2"],
            "urls must differ in more than their queries, .*, got wss://eu.example/v1 twice",
        ),
    ],
)
def test_what_is_no_list_of_urls_is_refused(urls: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        Endpoints(urls)
    assert "secret" not in str(refused.value)


async def test_no_endpoint_is_sent_a_token_unencrypted(session: aiohttp.ClientSession) -> None:
    endpoints = Endpoints(["wss://eu.example", f"ws://us.example?key={QUERY}"])
    with pytest.raises(ConfigurationError, match="url must be encrypted") as refused:
        InferenceConnection(session, endpoints, token=TOKEN)
    assert_clean(told_by(refused.value))
    InferenceConnection(session, endpoints, token=TOKEN, allow_insecure=True)
    InferenceConnection(session, endpoints)


async def test_a_callable_gives_one_url(pair: Pair) -> None:
    met = await failed(InferenceConnection(pair.session, lambda: pair.endpoints))  # type: ignore[arg-type]
    assert isinstance(met, TokenUnavailable)


def test_endpoints_are_of_one_event_loop() -> None:
    async def use(endpoints: Endpoints | None) -> Endpoints:
        async with Gateway() as gateway, aiohttp.ClientSession() as session:
            endpoints = endpoints or Endpoints([gateway.url("/v1/echo")])
            await echoed(InferenceConnection(session, endpoints))
        return endpoints

    endpoints = asyncio.run(use(None))
    with pytest.raises(StateError, match="one event loop"):
        asyncio.run(use(endpoints))
