"""Two calls at once, each of which loses its connection and dials again: a trace for each.

python examples/traced_calls.py

The gateway is one on this machine. Each line is a span as an exporter gets it: its trace, its
name, what came of it, its milliseconds.

Needs: pip install -e '.[otel]' opentelemetry-sdk, in the project's folder.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

try:
    import aiohttp
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    from agent_conn import AgentIdentity, InferenceConnection, reconnect
    from agent_conn.gateway import DropAfter, Gateway
    from agent_conn.integrations.opentelemetry import Telemetry
except ImportError as missing:
    sys.exit(f"traced_calls.py needs {missing.name}: pip install -e '.[otel]' opentelemetry-sdk")


def one_line(span: ReadableSpan) -> str:
    """Return what there is to see of a span."""
    attributes = span.attributes or {}
    told = attributes.get("agent_conn.ended") or attributes.get("agent_conn.outcome") or "-"
    seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
    context = span.get_span_context()
    trace_id = 0 if context is None else context.trace_id
    return f"{trace_id:032x}  {span.name:22} {told!s:12} {seconds * 1000:7.1f}\n"


async def call(job: str, gateway: Gateway, telemetry: Telemetry) -> None:
    """Send ten frames; the gateway drops the first connection after five."""
    async with aiohttp.ClientSession() as session:
        dial = partial(
            InferenceConnection,
            session,
            gateway.url("/v1/echo"),
            identity=AgentIdentity(job_id=job),
            observer=telemetry,
            trace_headers=telemetry.headers,
        )
        # All attempts of one loop are in the trace of the span around it.
        with trace.get_tracer("example").start_as_current_span("call"):
            async with reconnect(dial) as loop:
                answered = 0
                async for connection in loop:
                    await connection.ws.send_str("frame")
                    async for _ in connection.ws:
                        answered += 1
                        if answered == 10:
                            return
                        await connection.ws.send_str("frame")


async def main() -> None:
    """Make two calls at once."""
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
    trace.set_tracer_provider(spans)
    async with Gateway() as gateway:
        gateway.inject(DropAfter(5), times=2)
        telemetry = Telemetry()
        await asyncio.gather(*(call(job, gateway, telemetry) for job in ("AJ_1", "AJ_2")))


if __name__ == "__main__":
    asyncio.run(main())
