"""Faults by order of a page, over HTTP."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from agent_conn import HandshakeRejected, InferenceConnection
from agent_conn.gateway import FAULTS, Gateway


async def order(http: aiohttp.ClientSession, gateway: Gateway, **body: Any) -> str | None:
    """Order a fault. Returns what was wrong with that, or None."""
    origin = gateway.inspector_url.rstrip("/")
    async with http.post(
        f"{origin}/inspector/faults", json=body, headers={"Origin": origin}
    ) as response:
        answer = await response.json()
        assert response.status == (400 if "error" in answer else 200)
        text: str | None = answer.get("error")
        return text


async def forms_of(http: aiohttp.ClientSession, gateway: Gateway) -> list[dict[str, Any]]:
    async with http.get(gateway.inspector_url + "inspector/faults") as response:
        forms: list[dict[str, Any]] = await response.json()
        return forms


async def test_every_fault_can_be_ordered_as_its_form_says(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    forms = await forms_of(http, inspected)
    assert [form["name"] for form in forms] == [fault.__name__ for fault in FAULTS]
    for form in forms:
        assert form["about"]
        examples = {"code": 1011, "location": "/elsewhere"}
        fields = {
            field["name"]: examples.get(field["name"], field["default"])
            for field in form["fields"]
            if field["kind"] != "headers"
        }
        assert await order(http, inspected, fault=form["name"], fields=fields) is None
    inspected.withdraw_faults()


async def test_what_a_form_holds_becomes_the_fault(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    fields = {"status": 429, "headers": {"Retry-After": "7"}, "body": "enough"}
    assert await order(http, inspected, fault="Reject", fields=fields, times=2) is None
    for _ in range(2):
        with pytest.raises(HandshakeRejected) as refused:
            await InferenceConnection(session, inspected.url("/v1/echo"))
        error = refused.value
        assert (error.status, error.body, error.retry_after) == (429, "enough", 7.0)
    async with InferenceConnection(session, inspected.url("/v1/echo")):
        pass


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"fault": "Explode"}, "fault"),
        ({"fault": None}, "fault"),
        ({"fault": "CloseWith", "fields": {}}, "CloseWith needs code"),
        ({"fault": "CloseWith", "fields": {"code": "1011"}}, "code"),
        ({"fault": "CloseWith", "fields": {"code": 99999}}, "code"),
        ({"fault": "CloseWith", "fields": {"code": 1e400}}, "code"),
        ({"fault": "CloseWith", "fields": {"code": True}}, "code"),
        (
            {"fault": "CloseWith", "fields": {"code": 1011, "colour": 1}},
            "must be those of CloseWith, got 'colour'",
        ),
        ({"fault": "CloseWith", "fields": [1011]}, "fields"),
        ({"fault": "Redirect", "fields": {"location": "/\r\nSet-Cookie: a=b"}}, "location"),
        ({"fault": "Reject", "fields": {"headers": {"A": "b\r\nC: d"}}}, "headers"),
        ({"fault": "Reject", "fields": {"headers": {"a b": "c"}}}, "headers"),
        ({"fault": "Reject", "fields": {"status": 42}}, "status"),
        ({"fault": "Reset", "fields": {"phase": "later"}}, "phase"),
        ({"fault": "DropAfter", "fields": {"reset": "yes"}}, "reset"),
        ({"fault": "Reset", "times": 0}, "times"),
        ({"fault": "Reset", "times": 1.5}, "times"),
        ({"fault": "Reset", "connection": 4711}, "connection"),
        ({"fault": "Reset", "connection": "1"}, "connection"),
    ],
)
async def test_a_wrong_order_is_refused_by_name(
    inspected: Gateway, http: aiohttp.ClientSession, body: dict[str, Any], named: str
) -> None:
    told = await order(http, inspected, **body)
    assert told is not None
    assert named in told


async def test_a_fault_of_the_handshake_cannot_strike_an_open_connection(
    inspected: Gateway, http: aiohttp.ClientSession, session: aiohttp.ClientSession
) -> None:
    async with InferenceConnection(session, inspected.url("/v1/echo")) as ws:
        told = await order(http, inspected, fault="BadAccept", connection=1)
        assert told is not None
        assert "BadAccept makes no sense" in told
        assert await order(http, inspected, fault="Reset", connection=1) is None
        assert (await ws.receive(5)).type in (aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED)


async def test_waiting_faults_are_bounded(inspected: Gateway, http: aiohttp.ClientSession) -> None:
    for _ in range(50):
        assert await order(http, inspected, fault="Reset") is None
    told = await order(http, inspected, fault="Reset")
    assert told is not None
    assert "50 faults wait" in told
