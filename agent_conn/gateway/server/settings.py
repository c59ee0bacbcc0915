"""What a gateway's server is made with, checked."""

from __future__ import annotations

from dataclasses import dataclass

from agent_conn._checks import check_count
from agent_conn._identity import HeaderNames
from agent_conn._options import check_seconds


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
        check_count("port", self.port, least=0, most=65_535)
        check_count("max_msg_size", self.max_msg_size)
        if self.keep_handshakes is not None:
            check_count("keep_handshakes", self.keep_handshakes, least=0)
