"""What a gateway's server is made with, checked."""

from __future__ import annotations

from dataclasses import dataclass

from agent_conn._identity import HeaderNames
from agent_conn._options import check_seconds
from agent_conn.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The arguments of `Gateway` that are about its server.

    Raises:
        ConfigurationError: one of them is wrong.
    """

    host: str
    port: int
    tls: bool
    header_names: HeaderNames
    heartbeat: float | None
    request_timeout: float | None
    max_msg_size: int
    keep_handshakes: int | None

    def __post_init__(self) -> None:
        for name in ("heartbeat", "request_timeout"):
            if (seconds := getattr(self, name)) is not None:
                check_seconds(name, seconds)
        check_whole("port", self.port, 0, 65_535)
        check_whole("max_msg_size", self.max_msg_size, 1)
        if self.keep_handshakes is not None:
            check_whole("keep_handshakes", self.keep_handshakes, 0)


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Check a whole number.

    Raises:
        ConfigurationError: it is not one, or out of range; the message has `name` and the value.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and isinstance(value, int) and value > most):
        allowed = f"{least} to {most}" if most is not None else f"at least {least}"
        raise ConfigurationError(f"{name} must be a whole number, {allowed}, got {value!a:.40}")
