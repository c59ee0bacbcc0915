"""Over OTLP to a collector: what arrives there is what was observed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest
from helpers.canary import QUERY, TOKEN, WORKER_TOKEN
from helpers.otlp_collector import Collector, collecting
from helpers.staying_bench import converse, listen
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from agent_conn import AgentIdentity, HandshakeRejected, InferenceConnection, reconnect
from agent_conn.gateway import DropAfter, Gateway, Reject
from agent_conn.integrations.opentelemetry import Telemetry

RESOURCE = Resource({"service.name": "agent"})


@pytest.fixture
async def collector(
    loop_reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Collector]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with collecting() as opened:
        yield opened


@asynccontextmanager
async def exporting_to(collector: Collector) -> AsyncIterator[tuple[Telemetry, TracerProvider]]:
    """A telemetry whose spans and metrics have all been sent on leaving."""
    tracer_provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    spans = OTLPSpanExporter(f"{collector.url}/v1/traces")
    tracer_provider.add_span_processor(BatchSpanProcessor(spans))
    metrics = OTLPMetricExporter(f"{collector.url}/v1/metrics")
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=600_000)
    meter_provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    try:
        yield (
            Telemetry(tracer_provider=tracer_provider, meter_provider=meter_provider),
            tracer_provider,
        )
    finally:
        # Elsewhere than in the loop that serves the collector.
        await asyncio.to_thread(tracer_provider.shutdown)
        await asyncio.to_thread(meter_provider.shutdown)


def attributes_of(message: Any) -> dict[str, Any]:
    """The attributes of a span, a point or a resource."""
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value")) for one in message.attributes
    }


async def test_each_jobs_drop_and_redial_arrive_in_its_own_trace(
    gateway: Gateway, session: aiohttp.ClientSession, collector: Collector
) -> None:
    async def job(name: str, telemetry: Telemetry, tracers: TracerProvider) -> bytes:
        dial = partial(
            InferenceConnection,
            session,
            gateway.url("/v1/echo"),
            identity=AgentIdentity(job_id=name),
            observer=telemetry,
            trace_headers=telemetry.headers,
        )
        with tracers.get_tracer("application").start_as_current_span("job") as span:
            async with reconnect(dial) as loop:
                async for connection in loop:
                    await converse(connection)
                    if connection.record.redial:
                        break
                    gateway.connections[-1].inject(DropAfter())
                    await connection.ws.send_str("dropped")
                    await listen(connection)
            return span.get_span_context().trace_id.to_bytes(16, "big")

    async with exporting_to(collector) as (telemetry, tracers):
        traces = {name: await job(name, telemetry, tracers) for name in ("AJ_1", "AJ_2")}
    for name, trace_id in traces.items():
        connects = [
            span
            for span in collector.spans()
            if span.trace_id == trace_id and span.name == "agent_conn.connect"
        ]
        assert [attributes_of(span)["agent_conn.job.id"] for span in connects] == [name] * 2
        assert [attributes_of(span).get("agent_conn.redial") for span in connects] == [None, 1]
        at_gateway = [
            handshake.headers["traceparent"].split("-")[1:3]
            for handshake in gateway.handshakes
            if handshake.identity.job_id == name
        ]
        assert at_gateway == [[span.trace_id.hex(), span.span_id.hex()] for span in connects]
        lives = [
            span.status.code
            for span in collector.spans()
            if span.trace_id == trace_id and span.name == "agent_conn.connection"
        ]
        assert lives == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
    await gateway.wait_idle()


async def test_the_metrics_arrive_with_their_units(
    gateway: Gateway, session: aiohttp.ClientSession, collector: Collector
) -> None:
    async with exporting_to(collector) as (telemetry, _):
        dial = partial(InferenceConnection, session, gateway.url("/v1/echo"), observer=telemetry)
        async with dial():
            pass
        gateway.inject(Reject(503))
        with pytest.raises(HandshakeRejected):
            await dial()
    units = {metric.name: metric.unit for metric in collector.metrics()}
    assert units == {
        "agent_conn.connect.duration": "s",
        "agent_conn.phase.duration": "s",
        "agent_conn.open_connections": "{connection}",
        "agent_conn.connection.duration": "s",
    }
    (connects,) = [one for one in collector.metrics() if "connect.duration" in one.name]
    counts = {
        attributes_of(point)["agent_conn.outcome"]: point.count
        for point in connects.histogram.data_points
    }
    assert counts == {"opened": 1, "failed": 1}
    await gateway.wait_idle()


async def test_no_credential_is_on_the_wire(
    gateway: Gateway, session: aiohttp.ClientSession, collector: Collector
) -> None:
    async with exporting_to(collector) as (telemetry, _):
        connection = InferenceConnection(
            session,
            gateway.url(f"/v1/echo?key={QUERY}"),
            token=TOKEN,
            headers={"X-LiveKit-Worker-Token": WORKER_TOKEN},
            observer=telemetry,
            trace_headers=telemetry.headers,
        )
        async with connection:
            pass
    sent = b"".join(collector.bodies)
    assert connection.record.session_id.encode() in sent
    for canary in (QUERY, TOKEN, WORKER_TOKEN):
        assert canary.encode() not in sent
    await gateway.wait_idle()
