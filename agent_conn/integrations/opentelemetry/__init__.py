"""Spans and metrics of connections, for OpenTelemetry. Needs its API alone.

``pip install 'agent-conn[otel]'``. Where spans and metrics go is for the application's SDK to say.
"""

try:
    from agent_conn.integrations.opentelemetry.telemetry import Telemetry
except ImportError as _error:
    raise ImportError(
        "agent_conn.integrations.opentelemetry needs its API: pip install 'agent-conn[otel]'"
    ) from _error

__all__ = ["Telemetry"]
