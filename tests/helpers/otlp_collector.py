"""A collector that takes OTLP over HTTP, on loopback, and keeps what it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF = "application/x-protobuf"


class Collector:
    """What was sent to ``url``, decoded."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self._traces: list[ExportTraceServiceRequest] = []
        self._metrics: list[ExportMetricsServiceRequest] = []

    def spans(self) -> Iterator[Any]:
        for request in self._traces:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def metrics(self) -> Iterator[Any]:
        for request in self._metrics:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    yield from scope.metrics

    async def take_traces(self, request: web.Request) -> web.Response:
        self._traces.append(ExportTraceServiceRequest.FromString(await self._body(request)))
        return _answer(ExportTraceServiceResponse())

    async def take_metrics(self, request: web.Request) -> web.Response:
        self._metrics.append(ExportMetricsServiceRequest.FromString(await self._body(request)))
        return _answer(ExportMetricsServiceResponse())

    async def _body(self, request: web.Request) -> bytes:
        assert request.content_type == PROTOBUF
        body = await request.read()
        self.bodies.append(body)
        return body


def _answer(message: Any) -> web.Response:
    return web.Response(body=message.SerializeToString(), content_type=PROTOBUF)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take_traces)
    app.router.add_post("/v1/metrics", collector.take_metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        collector.url = f"http://{host}:{port}"
        yield collector
    finally:
        await runner.cleanup()
