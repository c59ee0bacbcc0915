"""Echo latency of the gateway under load: without its inspector, with it, and with its page open.

    python benchmarks/gateway_load.py --connections 1000 --senders 200 --seconds 20

The gateway runs in a process of its own; this one holds all connections and sends, on some of
them, 50 frames a second, each an `input_audio` of 50 ms of pcm at 16 kHz. The latency is from
just before the send until the echo is read, so that this process's own delay counts too. The
page is opened in a headless Chromium, which `--chromium` names.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import shutil
import statistics
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from playwright.async_api import Page, async_playwright

from agent_conn import AgentIdentity
from agent_conn.gateway import Gateway, Inspector
from agent_conn.gateway.sessions.protocol import InputAudio, to_json

FRAMES_A_SECOND = 50
FRAME = to_json(InputAudio(bytes(range(256)) * 6 + bytes(64)))
WARM_UP_SECONDS = 3.0
OPENED_AT_ONCE = 50
BROWSER_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WATCH_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => {
  window.longTasks.push(...list.getEntries().map((one) => one.duration));
}).observe({ type: "longtask" });
"""
READ_PAGE = """
() => ({
  live: document.getElementById("live").textContent.trim(),
  rows: document.querySelectorAll(".row").length,
  shown: document.getElementById("shown").textContent,
  share: document.getElementById("share-note").textContent,
  longTasks: window.longTasks,
})
"""


@dataclass
class Sender:
    """One connection that frames are sent on; times are seconds of the loop's clock."""

    ws: aiohttp.ClientWebSocketResponse
    due: float
    sent: deque[float] = field(default_factory=deque)


@dataclass
class Load:
    """What came of one run."""

    latencies: list[float] = field(default_factory=list)
    late: int = 0
    measuring: bool = False


async def serve(*, inspector: bool) -> None:
    """The gateway's process: prints where it is, and ends with its standard input."""
    async with Gateway(inspector=Inspector() if inspector else None) as gateway:
        print(gateway.url("/v1/echo"), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(usage.ru_utime + usage.ru_stime, flush=True)


@asynccontextmanager
async def gateway_process(*, inspector: bool) -> AsyncIterator[tuple[str, list[float]]]:
    """Give its URL, and a list that its CPU seconds are put into at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--serve", "with" if inspector else "without"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    spent: list[float] = []
    try:
        yield (await process.stdout.readline()).decode().strip(), spent
    finally:
        process.stdin.close()
        spent.append(float(await process.stdout.readline()))
        await process.wait()


def identity(index: int) -> AgentIdentity:
    """One job a connection, at each of the four levels in turn."""
    ids = (f"AJ_{index}", f"RM_{index}", f"PA_{index}")
    return AgentIdentity(*ids[: index % 4])


async def connect(
    session: aiohttp.ClientSession, url: str, number: int
) -> list[aiohttp.ClientWebSocketResponse]:
    opened: list[aiohttp.ClientWebSocketResponse] = []
    while len(opened) < number:
        batch = range(len(opened), min(number, len(opened) + OPENED_AT_ONCE))
        opened += await asyncio.gather(
            *(session.ws_connect(url, headers=identity(index).headers()) for index in batch)
        )
    return opened


async def pace(senders: list[Sender], load: Load) -> None:
    """Send each frame when it is due, in one task: as many timers would be load themselves."""
    loop = asyncio.get_running_loop()
    queue = deque(sorted(senders, key=lambda sender: sender.due))
    while True:
        sender = queue.popleft()
        # Also where it is late: a send that need not wait lets no reader run.
        await asyncio.sleep(max(0.0, sender.due - loop.time()))
        now = loop.time()
        load.late += now - sender.due > 1 / FRAMES_A_SECOND
        sender.sent.append(now)
        await sender.ws.send_str(FRAME)
        sender.due += 1 / FRAMES_A_SECOND
        queue.append(sender)


async def read(sender: Sender, load: Load) -> None:
    loop = asyncio.get_running_loop()
    async for _ in sender.ws:
        latency = loop.time() - sender.sent.popleft()
        if load.measuring:
            load.latencies.append(latency)


async def run(options: argparse.Namespace, *, inspector: bool, page: Page | None) -> None:
    load = Load()
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        gateway_process(inspector=inspector) as (url, spent),
        aiohttp.ClientSession(connector=connector) as session,
    ):
        opened = await connect(session, url, options.connections)
        if page is not None:
            await page.goto(url.replace("ws:", "http:").replace("v1/echo", ""))
        start = asyncio.get_running_loop().time() + 0.5
        step = 1 / FRAMES_A_SECOND / max(1, options.senders)
        senders = [
            Sender(ws, start + index * step) for index, ws in enumerate(opened[: options.senders])
        ]
        gc.collect()
        gc.freeze()
        tasks = [asyncio.create_task(read(sender, load)) for sender in senders]
        tasks.append(asyncio.create_task(pace(senders, load)))
        await asyncio.sleep(0.5 + WARM_UP_SECONDS)
        load.measuring = True
        await asyncio.sleep(options.seconds)
        load.measuring = False
        state = None if page is None else await page.evaluate(READ_PAGE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(ws.close() for ws in opened))
    name = "page open" if page else "inspector, no page" if inspector else "no inspector"
    report(name, load, options.seconds, spent[0])
    if state is not None:
        tasks_over = state["longTasks"]
        print(
            f"  the page: {state['live']}, {state['rows']} rows, {state['shown']}, "
            f"{state['share']}; {len(tasks_over)} tasks over 50 ms, "
            f"longest {max(tasks_over, default=0):.0f} ms"
        )


def report(name: str, load: Load, seconds: float, cpu: float) -> None:
    cuts = statistics.quantiles(load.latencies, n=1000)
    print(
        f"{name:19} p50 {cuts[499] * 1e3:6.2f} ms  p99 {cuts[989] * 1e3:6.2f} ms  "
        f"p99.9 {cuts[998] * 1e3:6.2f} ms  longest {max(load.latencies) * 1e3:6.1f} ms  "
        f"{len(load.latencies) / seconds:,.0f} echoes/s, {load.late} sent late, "
        f"gateway CPU {cpu:.1f} s",
        flush=True,
    )


async def measure(options: argparse.Namespace) -> None:
    print(
        f"{options.connections} connections, {options.senders} of them with {FRAMES_A_SECOND} "
        f"frames of {len(FRAME)} bytes a second, {options.seconds:g} s; "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    await run(options, inspector=False, page=None)
    await run(options, inspector=True, page=None)
    if options.chromium is None:
        sys.exit("no Chromium was found: name it with --chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=options.chromium, args=list(BROWSER_ARGUMENTS)
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.add_init_script(WATCH_TASKS)
        await run(options, inspector=True, page=page)
        await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--senders", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--serve", choices=["with", "without"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    if options.serve is not None:
        asyncio.run(serve(inspector=options.serve == "with"))
    else:
        asyncio.run(measure(options))


if __name__ == "__main__":
    main()
