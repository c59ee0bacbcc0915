"""What OpenTelemetry's SDK was given, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import SpanContext, Tracer

from agent_conn.integrations.opentelemetry import Telemetry

Attributes = dict[str, Any]


class Exported:
    """A real SDK around a ``Telemetry``, and what came out of it."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = Telemetry(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider
        )

    @property
    def tracer(self) -> Tracer:
        """The application's own."""
        return self.tracer_provider.get_tracer("application")

    def options(self) -> dict[str, Any]:
        """What a connection is given."""
        return {"observer": self.telemetry, "trace_headers": self.telemetry.headers}

    def spans(self, name: str = "agent_conn.connect") -> list[ReadableSpan]:
        """The ended spans of one name, in the order of their ends."""
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def all_spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def series(self, name: str) -> list[tuple[Attributes, Any]]:
        """The attributes and the data point of every series of one metric."""
        return [(dict(p.attributes), p) for metric, p in self.points() if metric == name]

    def values(self, name: str, attribute: str) -> dict[Any, float]:
        """The sums (of a histogram: the counts) of one metric by one attribute."""
        found: dict[Any, float] = {}
        for attributes, point in self.series(name):
            value = point.count if hasattr(point, "count") else point.value
            key = attributes.get(attribute)
            found[key] = found.get(key, 0) + value
        return found

    def points(self) -> Iterator[tuple[str, Any]]:
        """Every data point, with the name of its metric."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        yield metric.name, point

    def texts(self) -> list[str]:
        """Everything that was exported, as text."""
        data = self._reader.get_metrics_data()
        texts = [span.to_json() for span in self.all_spans()]
        return [*texts, data.to_json() if data is not None else ""]


@contextmanager
def exporting(sampler: Sampler = ALWAYS_ON) -> Iterator[Exported]:
    exported = Exported(sampler)
    try:
        yield exported
    finally:
        exported.tracer_provider.shutdown()
        exported.meter_provider.shutdown()


def attributes_of(span: ReadableSpan) -> Attributes:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id
