"""The inspector's page in a real Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from helpers.support import Room
from playwright.async_api import Page, expect

from agent_conn import AgentIdentity, HandshakeRejected, InferenceConnection, reconnect
from agent_conn.gateway import CloseWith, DropAfter, Gateway, Inspector
from agent_conn.gateway.sessions.protocol import (
    InputAudio,
    InputTranscript,
    SessionFinalize,
    SttCreate,
    TtsCreate,
    to_json,
)

if TYPE_CHECKING:
    from inspector.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)

Take = Callable[[Page, str], Awaitable[None]]

MARKUP = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"

# Text whose contrast with what is behind it is below what WCAG 2.2 asks (1.4.3).
LOW_CONTRAST = """
() => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const parse = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.className} ${element.textContent} ${ratio.toFixed(2)}`);
  }
  return found;
}
"""


def rows(page: Page, line: int | None = None) -> Any:
    return page.locator(".row" if line is None else f'.row[data-line="{line}"]')


async def colour(page: Page) -> str:
    text: str = await page.locator(".row .chip").evaluate("one => getComputedStyle(one).color")
    return text


async def test_a_connection_appears_is_upgraded_and_closes(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage, screenshot: Take
) -> None:
    page = await open_page(inspected.inspector_url)
    await expect(page.locator("#empty")).to_contain_text("LIVEKIT_INFERENCE_URL=http://127.0.0.1")
    room = Room()
    dial = partial(
        InferenceConnection, session, inspected.url("/v1/echo?model=m"), identity=room.identity
    )
    before, colours = None, []
    async with reconnect(dial) as loop:
        async for connection in loop:
            if before is not None:
                break
            before = connection
            row = rows(page)
            await expect(row).to_have_count(1)
            await expect(row.locator(".chip b")).to_have_text("ROOM")
            await expect(row.locator(".state")).to_contain_text("open")
            colours.append(await colour(page))
            room.connected.set()
            assert await loop.upgrade()
            await expect(row.locator(".chip b")).to_have_text("AGENT")
            await expect(row.locator(".cell.level")).to_contain_text("ROOM still open")
            await screenshot(page, "upgraded")
        await expect(rows(page)).to_have_count(1)
        await expect(rows(page).locator(".cell.level .second")).to_have_text("was ROOM")
        # The change of colour takes a moment, where motion is wanted.
        await page.emulate_media(reduced_motion="reduce")
        colours.append(await colour(page))
    assert colours[0] != colours[1]
    await expect(rows(page).locator(".state")).to_contain_text("closed 1000")


async def test_a_loss_has_the_colour_of_loss_and_a_clean_close_has_not(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    for fault in (None, DropAfter(), CloseWith(1011)):
        if fault is not None:
            inspected.inject(fault)
        async with session.ws_connect(inspected.url("/v1/echo")) as ws:
            if fault is not None:
                await ws.receive(5)
    state = "one => getComputedStyle(one.querySelector('.state .first')).color"
    for number in (1, 2, 3):
        await expect(rows(page, number).locator(".state")).to_contain_text("closed")
    clean, dropped, failed = [await rows(page, number).evaluate(state) for number in (1, 2, 3)]
    assert dropped == failed != clean


async def test_it_can_be_read_in_the_systems_own_colours(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    await page.emulate_media(forced_colors="active")
    identity = AgentIdentity("J", "R", "P")
    async with InferenceConnection(session, inspected.url("/v1/echo"), identity=identity):
        await expect(rows(page)).to_have_count(1)
        drawn = "one => getComputedStyle(one).backgroundColor"
        behind = await rows(page).evaluate(drawn)
        for part in (".pips i.on", ".waterfall .life"):
            assert await rows(page).locator(part).first.evaluate(drawn) != behind
        assert await page.evaluate(LOW_CONTRAST) == []


async def test_a_fault_from_the_page_ends_a_live_connection_with_the_typed_error(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    connection = InferenceConnection(session, inspected.url("/v1/echo"))
    async with connection as ws:
        reading = asyncio.create_task(ws.receive(10), name="reading")
        await rows(page).click()
        drawer = page.locator("#drawer")
        await drawer.get_by_label("Fault", exact=True).select_option("CloseWith")
        await drawer.get_by_label("code").fill("1012")
        await drawer.get_by_role("button", name="Inject here").click()
        assert (await reading).type is aiohttp.WSMsgType.CLOSE
        await expect(rows(page).locator(".state")).to_contain_text("closed 1012")
        await expect(rows(page).locator(".state")).to_contain_text("fault: close with 1012")
        await expect(drawer).to_contain_text(
            "Injected: close with 1012. The connection is not open."
        )
    assert connection.loss is not None
    assert connection.loss.code == 1012


async def test_a_fault_from_the_page_meets_the_next_connection_or_is_withdrawn(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    await page.click("#faults-next")
    drawer = page.locator("#drawer")
    for status in ("429", "503"):
        await drawer.get_by_label("Fault", exact=True).select_option("Reject")
        await drawer.get_by_label("status").fill(status)
        await drawer.get_by_role("button", name="Inject on the next").click()
    await expect(drawer.locator("li")).to_have_count(2)
    await expect(page.locator("#pending-count")).to_have_text("2 waiting")
    with pytest.raises(HandshakeRejected) as refused:
        await InferenceConnection(session, inspected.url("/v1/echo"))
    assert refused.value.status == 429
    await expect(rows(page).locator(".state")).to_contain_text("rejected 429")
    await expect(drawer.locator("li")).to_have_count(1)
    await drawer.get_by_role("button", name="Withdraw").click()
    await expect(drawer.locator("li")).to_have_count(0)
    async with InferenceConnection(session, inspected.url("/v1/echo")):
        await expect(rows(page, 2).locator(".state")).to_contain_text("open")


async def test_nothing_from_outside_is_markup(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage, screenshot: Take
) -> None:
    page = await open_page(inspected.inspector_url)
    connection = InferenceConnection(
        session,
        inspected.url("/v1/stt").replace("/v1/stt", "/v1/stt?model=<b>m</b>"),
        identity=AgentIdentity(job_id=MARKUP),
        headers={"User-Agent": MARKUP, "X-Odd": MARKUP},
    )
    async with connection as ws:
        await ws.send_str(to_json(SttCreate()))
        await ws.send_str(to_json(InputAudio(bytes(320))))
        await ws.send_str(to_json(SessionFinalize()))
        await ws.send_str(f'{{"type": "{MARKUP}"}}')
        await rows(page).click()
        drawer = page.locator("#drawer")
        said = "said <script>window.pwned = 1</script> here"
        await expect(drawer.locator(".transcript .text")).to_have_text(said)
        await expect(drawer.locator('[data-fact="Job"] span')).to_have_text(MARKUP)
        await expect(drawer.locator('[data-fact="Client"]')).to_have_text(MARKUP)
        await expect(drawer.locator(".box-headers")).to_contain_text(MARKUP)
        await expect(drawer.locator(".box-messages")).to_contain_text(MARKUP[:30])
        await expect(rows(page).locator(".client")).to_contain_text(MARKUP)
        await screenshot(page, "details")
    async with session.get(inspected.base_url.replace("/v1", f"/v1/{MARKUP}")) as refused:
        assert refused.status == 404
    await expect(rows(page, 2).locator(".path")).to_contain_text(MARKUP)
    assert await page.locator("main script, aside script, main img, aside img").count() == 0
    assert await page.evaluate("window.pwned === undefined")


async def test_the_text_that_is_to_be_spoken_is_shown_and_audio_is_not(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    async with InferenceConnection(session, inspected.url("/v1/tts")) as ws:
        await ws.send_str(to_json(TtsCreate()))
        await ws.send_str(to_json(InputTranscript("speak of it")))
        for _ in range(3):
            await ws.send_str(to_json(InputAudio(b"\x01\x02" * 50)))
        await rows(page).click()
        drawer = page.locator("#drawer")
        await expect(drawer.locator(".transcript")).to_contain_text("to speak speak of it")
        await expect(drawer.locator(".log")).to_contain_text("input_audio")
        await expect(drawer.locator(".log")).to_contain_text("\N{MULTIPLICATION SIGN}3")
        assert "AQIB" not in await page.content()


async def test_the_keyboard_alone_filters_opens_and_injects(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)

    async def tab_to(label: str) -> None:
        for _ in range(40):
            await page.keyboard.press("Tab")
            focused = await page.evaluate(
                "(() => { const one = document.activeElement;"
                " return `${one.id} ${one.className} ${one.textContent}`; })()"
            )
            if label in focused:
                return
        raise AssertionError(label)

    identity = AgentIdentity(job_id="AJ_1")
    connection = InferenceConnection(session, inspected.url("/v1/echo"), identity=identity)
    other = InferenceConnection(session, inspected.url("/v1/stt"))
    async with connection as ws, other:
        await expect(rows(page)).to_have_count(2)
        await tab_to("JOB")
        await page.keyboard.press("Space")
        await expect(rows(page).filter(visible=True)).to_have_count(1)
        await page.keyboard.press("Space")
        await expect(rows(page).filter(visible=True)).to_have_count(2)
        await tab_to("row")
        await expect(rows(page, 2)).to_be_focused()
        await page.keyboard.press("ArrowDown")
        await expect(rows(page, 1)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#drawer-title")).to_be_focused()
        await expect(page.locator(".fault-form")).to_be_visible()
        await tab_to("Inject here")
        await page.keyboard.press("Enter")
        assert (await ws.receive(5)).data == 1011
        await page.keyboard.press("Escape")
        await expect(page.locator("#drawer")).to_be_hidden()
        await expect(rows(page, 1)).to_be_focused()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_it_fits_its_width_and_can_be_read(
    inspected: Gateway,
    session: aiohttp.ClientSession,
    open_page: OpenPage,
    screenshot: Take,
    width: int,
    scheme: str,
) -> None:
    page = await open_page(inspected.inspector_url, width=width, scheme=scheme)
    await page.emulate_media(reduced_motion="reduce")
    await expect(page.locator("#empty")).to_be_visible()
    assert await page.evaluate(LOW_CONTRAST) == []
    await screenshot(page, "empty")
    levels = [
        AgentIdentity(),
        AgentIdentity("J" * 200),
        AgentIdentity("J", "R"),
        AgentIdentity("J", "R", "P"),
    ]
    for identity in levels:
        headers = {"User-Agent": "client/" + "9" * 180}
        connection = InferenceConnection(
            session, inspected.url("/v1/stt?model=m"), identity=identity, headers=headers
        )
        async with connection as ws:
            await ws.send_str(to_json(SttCreate()))
            await ws.receive(5)
    dial = partial(InferenceConnection, session, inspected.url("/v1/stt"), identity=levels[1])
    async with dial():
        await expect(rows(page)).to_have_count(5)
        assert await page.evaluate(LOW_CONTRAST) == []
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        right_edges = await rows(page, 5).evaluate(
            "one => [one, one.querySelector('.began')].map((e) => e.getBoundingClientRect().right)"
        )
        assert right_edges[1] <= right_edges[0] <= width
        await screenshot(page, "rows")
        await rows(page, 5).locator(".path").click()
        await expect(page.locator(".fault-form")).to_be_visible()
        assert await page.evaluate(LOW_CONTRAST) == []
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        body = page.locator("#drawer-body")
        assert await body.evaluate("one => one.scrollWidth <= one.clientWidth")
        await screenshot(page, "details")


async def test_a_thousand_rows_and_only_the_one_that_changes_is_written(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage, screenshot: Take
) -> None:
    for _ in range(999):
        async with session.get(inspected.base_url + "/stt") as refused:
            assert refused.status == 426
    async with InferenceConnection(session, inspected.url("/v1/echo")) as ws:
        page = await open_page(inspected.inspector_url)
        await expect(rows(page)).to_have_count(1000)
        await expect(page.locator("#shown")).to_have_text("1,000 of 1,000 shown, 999 failed")
        await screenshot(page, "rows")
        await page.evaluate("""() => {
            window.written = new Set();
            new MutationObserver((changes) => {
                for (const change of changes) {
                    const row = change.target.parentElement?.closest(".row");
                    if (row) window.written.add(row.dataset.line);
                }
            }).observe(document.getElementById("grid"),
                       { subtree: true, childList: true, characterData: true });
        }""")
        await ws.send_str("one")
        await expect(rows(page, 1000).locator(".frames")).to_contain_text("1 in")
        assert await page.evaluate("[...window.written]") == ["1000"]
        await page.get_by_label("State").select_option("open")
        await expect(rows(page).filter(visible=True)).to_have_count(1)


async def test_a_gateway_that_goes_and_comes_back(
    session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    async with Gateway(inspector=Inspector()) as first:
        port = first.port
        page = await open_page(first.inspector_url)
        async with InferenceConnection(session, first.url("/v1/echo")):
            await expect(rows(page)).to_have_count(1)
    await expect(page.locator("#live")).to_have_text("Disconnected, reconnecting")
    async with Gateway(port=port, inspector=Inspector()):
        await expect(page.locator("#live")).to_have_text("Live")
        await expect(rows(page)).to_have_count(0)
        await expect(page.locator("#empty")).to_be_visible()


async def test_what_is_not_kept_is_counted_on_the_page(
    session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    async with Gateway(inspector=Inspector(max_connections=5)) as gateway:
        page = await open_page(gateway.inspector_url)
        for _ in range(8):
            async with InferenceConnection(session, gateway.url("/v1/echo")):
                pass
        await expect(rows(page)).to_have_count(5)
        await expect(page.locator("#shown")).to_have_text(
            "5 of 5 shown; 3 older not kept (bound 5)"
        )
        await expect(page.locator("#levels")).to_contain_text("0 open of 8")


async def test_a_remote_gateway_asks_the_browser_for_its_token(open_page: OpenPage) -> None:
    inspector = Inspector(token="sesame-4711", allow_remote=True)
    async with Gateway(host="0.0.0.0", inspector=inspector) as gateway:
        page = await open_page(gateway.inspector_url)
        await page.get_by_label("Token of this inspector").fill("wrong")
        await page.get_by_role("button", name="Open").click()
        await expect(page.get_by_role("alert")).to_have_text("the token is wrong")
        await page.get_by_label("Token of this inspector").fill("sesame-4711")
        await page.get_by_role("button", name="Open").click()
        await expect(page.locator("#live")).to_have_text("Live")
        assert "sesame" not in await page.evaluate("document.cookie")
        await asyncio.gather(page.reload(), page.wait_for_load_state())
        await expect(page.locator("#live")).to_have_text("Live")
