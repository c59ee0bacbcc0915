"""How many requests an instrument of the whole process sees in one open.

    python tests/core/instruments.py opentelemetry

Prints one JSON object: for a bare ``ws_connect``, an ``InferenceConnection`` and one that
pre-dials, how many requests were seen, and how many of them as an error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable

Seen = Callable[[], tuple[int, int]]
"""Tells what was seen since it was last asked: requests, and errors among them."""


def opentelemetry() -> Seen:
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)

    def seen() -> tuple[int, int]:
        spans = exporter.get_finished_spans()
        exporter.clear()
        return len(spans), sum(span.status.status_code.name == "ERROR" for span in spans)

    return seen


def sentry() -> Seen:
    import sentry_sdk
    from sentry_sdk.integrations.aiohttp import AioHttpIntegration

    breadcrumbs: list[dict[str, object]] = []

    def keep(breadcrumb: dict[str, object], _: object) -> None:
        breadcrumbs.append(breadcrumb)

    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        before_breadcrumb=keep,
        integrations=[AioHttpIntegration()],
        default_integrations=False,
        transport=lambda _: None,
    )

    def seen() -> tuple[int, int]:
        taken = [each for each in breadcrumbs if each["category"] == "httplib"]
        breadcrumbs.clear()
        return len(taken), sum(each.get("level") == "error" for each in taken)

    return seen


def ddtrace() -> Seen:
    os.environ |= {
        "DD_AGENT_HOST": "127.0.0.1",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "DD_TRACE_AGENT_PORT": "9",
    }
    from ddtrace import patch
    from ddtrace.trace import TraceFilter, tracer

    spans: list[tuple[str, int]] = []

    class Keep(TraceFilter):  # type: ignore[misc]
        def process_trace(self, trace):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            spans.extend((span.name, span.error) for span in trace)

    patch(aiohttp=True)
    tracer.configure(trace_processors=[Keep()])

    def seen() -> tuple[int, int]:
        # Beside a request it shows what the connector is asked for one.
        taken = [error for name, error in spans if name == "aiohttp.request"]
        spans.clear()
        return len(taken), sum(taken)

    return seen


async def count(seen: Seen) -> dict[str, tuple[int, int]]:
    """What is seen of each way to open."""
    import aiohttp

    from agent_conn import InferenceConnection
    from agent_conn.gateway import Gateway

    counts: dict[str, tuple[int, int]] = {}
    async with Gateway() as gateway, aiohttp.ClientSession() as session:
        url = gateway.url("/v1/echo")
        async with session.ws_connect(url):
            pass
        counts["bare"] = seen()
        async with InferenceConnection(session, url):
            pass
        counts["cold"] = seen()
        room = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, room.set)
        async with InferenceConnection(session, url, room_connected=room):
            pass
        counts["after a wait"] = seen()
    return counts


if __name__ == "__main__":
    # Before aiohttp is imported, as instruments are.
    instrument = {"opentelemetry": opentelemetry, "sentry": sentry, "ddtrace": ddtrace}
    print(json.dumps(asyncio.run(count(instrument[sys.argv[1]]()))))
