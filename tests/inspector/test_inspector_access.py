"""Who may see the inspector, and what a browser is told."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import pytest

from agent_conn import ConfigurationError, StateError
from agent_conn.gateway import Gateway, Inspector

TOKEN = "sesame-4711"
PATHS = ("", "inspector/events", "inspector/faults", "inspector/access", "inspector/connections/1")
REMOTE = Inspector(token=TOKEN, allow_remote=True)


async def status_of(http: aiohttp.ClientSession, url: str, **options: Any) -> int:
    async with http.get(url, allow_redirects=False, **options) as response:
        return response.status


async def post(http: aiohttp.ClientSession, gateway: Gateway, **headers: str) -> int:
    url = gateway.inspector_url + "inspector/faults"
    order = {"fault": "Reject", "fields": {}}
    async with http.post(url, json=order, headers=headers) as response:
        return response.status


def origin_of(gateway: Gateway) -> str:
    return gateway.inspector_url.rstrip("/")


@pytest.mark.parametrize(
    "path", ["", "inspector/static/main.js", "inspector/events", "inspector/no"]
)
async def test_every_answer_forbids_what_the_page_does_not_need(
    inspected: Gateway, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.get(inspected.inspector_url + path.replace("/no", "/static/no")) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", PATHS[:3])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""])
async def test_a_name_rebound_to_loopback_is_refused(
    inspected: Gateway, http: aiohttp.ClientSession, path: str, host: str
) -> None:
    headers = {"Host": f"{host}:{inspected.port}"}
    assert await status_of(http, inspected.inspector_url + path, headers=headers) == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
async def test_loopbacks_own_names_are_served(
    inspected: Gateway, http: aiohttp.ClientSession, host: str
) -> None:
    headers = {"Host": f"{host}:{inspected.port}"}
    assert await status_of(http, inspected.inspector_url, headers=headers) == 200


async def test_only_the_pages_own_origin_may_inject(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    own = origin_of(inspected)
    assert await post(http, inspected, Origin=own) == 200
    assert await post(http, inspected) == 403
    assert await post(http, inspected, Origin="null") == 403
    assert await post(http, inspected, Origin="http://evil.example") == 403
    assert await post(http, inspected, Origin=own.replace("http:", "https:")) == 403


@pytest.mark.parametrize("path", PATHS[1:])
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
    ],
)
async def test_another_sites_page_reads_nothing(
    inspected: Gateway, http: aiohttp.ClientSession, path: str, header: str, value: str
) -> None:
    url = inspected.inspector_url + path
    assert await status_of(http, url, headers={header: value}) == 403


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_another_sites_page_injects_nothing_even_under_the_right_origin(
    inspected: Gateway, http: aiohttp.ClientSession, site: str
) -> None:
    headers = {"Origin": origin_of(inspected), "Sec-Fetch-Site": site}
    assert await post(http, inspected, **headers) == 403
    headers["Sec-Fetch-Site"] = "same-origin"
    assert await post(http, inspected, **headers) == 200


async def test_a_link_on_another_site_leads_to_the_page(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert await status_of(http, inspected.inspector_url, headers=headers) == 200


async def test_the_token_cannot_be_guessed_at_will(http: aiohttp.ClientSession) -> None:
    async with Gateway(inspector=REMOTE) as gateway:
        answers = [
            await status_of(http, f"{gateway.inspector_url}?token={number}") for number in range(25)
        ]
        assert answers == [401] * 20 + [429] * 5
        # Nor is the right one looked at meanwhile.
        assert await status_of(http, f"{gateway.inspector_url}?token={TOKEN}") == 429


async def test_a_form_of_another_site_cannot_inject(
    inspected: Gateway, http: aiohttp.ClientSession
) -> None:
    url = inspected.inspector_url + "inspector/faults"
    async with http.post(
        url, data='{"fault":"Reset"}', headers={"Origin": origin_of(inspected)}
    ) as response:
        assert response.status == 415


async def test_without_an_inspector_nothing_is_served(http: aiohttp.ClientSession) -> None:
    async with Gateway() as gateway:
        base = gateway.base_url.removesuffix("v1")
        for path in PATHS:
            assert await status_of(http, base + path) == 404
        with pytest.raises(StateError, match="has no inspector"):
            _ = gateway.inspector_url


@pytest.mark.parametrize(
    ("host", "inspector", "named"),
    [
        ("0.0.0.0", Inspector(), "allow_remote"),
        ("0.0.0.0", Inspector(token=TOKEN), "allow_remote"),
        ("0.0.0.0", Inspector(allow_remote=True), "token"),
        ("::", Inspector(allow_remote=True), "token"),
        ("gateway.example", Inspector(), "allow_remote"),
    ],
)
def test_another_host_takes_leave_and_a_token(host: str, inspector: Inspector, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as refused:
        Gateway(host=host, inspector=inspector)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_connections": 0}, "max_connections"),
        ({"token": " "}, "token"),
        ({"token": "é"}, "token"),
    ],
)
def test_a_wrong_inspector_is_refused_where_it_is_made(options: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Inspector(**options)


def test_the_token_is_in_no_repr() -> None:
    assert TOKEN not in repr(REMOTE)


async def test_a_token_once_is_a_cookie_from_then_on(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Gateway(host="0.0.0.0", inspector=REMOTE) as gateway:
        for path, refused in zip(PATHS, (401,) * 5, strict=True):
            assert await status_of(http, gateway.inspector_url + path) == refused
        assert await status_of(http, f"{gateway.inspector_url}?token=sesame") == 401
        async with http.get(
            f"{gateway.inspector_url}?token={TOKEN}", allow_redirects=False
        ) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")
            cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert await status_of(http, gateway.inspector_url) == 200
        assert await status_of(http, gateway.inspector_url + "inspector/faults") == 200
        # A remote gateway is reached by addresses, but by no name that it does not know.
        for host, status in (("192.0.2.1", 200), ("evil.example", 403)):
            headers = {"Host": f"{host}:{gateway.port}"}
            assert await status_of(http, gateway.inspector_url, headers=headers) == status
    assert TOKEN not in caplog.text


async def test_the_cookie_of_another_gateway_opens_nothing(http: aiohttp.ClientSession) -> None:
    async with Gateway(inspector=REMOTE) as first, Gateway(inspector=REMOTE) as second:
        assert await status_of(http, f"{first.inspector_url}?token={TOKEN}") == 303
        assert await status_of(http, first.inspector_url) == 200
        assert await status_of(http, second.inspector_url) == 401


async def test_the_token_can_be_shown_in_a_form(http: aiohttp.ClientSession) -> None:
    async with Gateway(inspector=REMOTE) as gateway:
        url = gateway.inspector_url + "inspector/session"
        headers = {"Origin": origin_of(gateway)}
        for token, status in (("wrong", 401), (4711, 401), (TOKEN, 200)):
            async with http.post(url, json={"token": token}, headers=headers) as response:
                assert response.status == status
        assert await status_of(http, gateway.inspector_url) == 200


async def test_the_page_is_served_over_tls(http: aiohttp.ClientSession) -> None:
    async with Gateway(tls=True, inspector=REMOTE) as gateway:
        url = f"{gateway.inspector_url}?token={TOKEN}"
        async with http.get(url, ssl=gateway.client_ssl or True, allow_redirects=False) as response:
            assert response.status == 303
            assert "Secure" in response.headers["Set-Cookie"]
