"""What one connection was asked to do, checked before any I/O."""

from __future__ import annotations

import ipaddress
import ssl as ssl_module
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import aiohttp
from yarl import URL

from agent_conn._identity import (
    AgentIdentity,
    AttributionLevel,
    HeaderNames,
    is_header_name,
    is_printable_ascii,
)
from agent_conn._room import RoomConnected
from agent_conn._sources import is_token
from agent_conn.errors import ConfigurationError

MAX_HEADER_VALUE = 8190
"""Bytes of one header that aiohttp's and most other servers take."""

_SCHEMES = frozenset({"ws", "wss", "http", "https"})
_INSECURE_SCHEMES = frozenset({"ws", "http"})
_HANDSHAKE_NAMES = frozenset(
    {"host", "connection", "upgrade", "content-length", "transfer-encoding"}
)
_HANDSHAKE_PREFIX = "sec-websocket-"
_WINDOW_BITS = 15

Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
"""What an aiohttp client middleware passes a request on to."""
TlsSetting = ssl_module.SSLContext | aiohttp.Fingerprint | bool


class DialSettings:
    """Checked settings of a dial. Its repr shows none of them, since some are secret.

    Raises:
        ConfigurationError: an argument is wrong; the message names it, never its value.
    """

    __slots__ = (
        "authorized",
        "close_timeout",
        "compress",
        "headers",
        "heartbeat",
        "max_msg_size",
        "open_timeout",
        "protocols",
        "proxy",
        "reserved_names",
        "ssl",
        "url",
    )

    def __init__(
        self,
        *,
        url: str | URL,
        headers: Mapping[str, str] | None,
        header_names: HeaderNames,
        has_token: bool,
        open_timeout: float,
        close_timeout: float,
        heartbeat: float | None,
        protocols: Iterable[str],
        compress: bool,
        max_msg_size: int,
        ssl: TlsSetting,
        proxy: str | URL | None,
        allow_insecure: bool,
    ) -> None:
        self.url: URL = check_url(url)
        reserved = header_names.all()
        self.reserved_names: tuple[str, ...] = (
            (*reserved, "Authorization") if has_token else reserved
        )
        self.headers: dict[str, str] = check_headers(headers, self.reserved_names)
        # Whether an Authorization header goes out that the caller or a token gave.
        self.authorized: bool = has_token or _has_authorization(self.headers)
        if not allow_insecure:
            _check_security(self.url, ssl, carries_token=self.authorized)
        self.open_timeout: float = check_seconds("open_timeout", open_timeout)
        self.close_timeout: float = check_seconds("close_timeout", close_timeout)
        self.heartbeat: float | None = (
            None if heartbeat is None else check_seconds("heartbeat", heartbeat)
        )
        self.protocols: tuple[str, ...] = _check_protocols(protocols)
        self.compress: int = _WINDOW_BITS if compress else 0
        self.max_msg_size: int = _check_size(max_msg_size)
        self.ssl: TlsSetting = _check_tls(ssl)
        self.proxy: URL | None = None if proxy is None else _parse("proxy", proxy)


@lru_cache(maxsize=16, typed=True)
def _checked(**arguments: Any) -> DialSettings:  # noqa: ANN401
    return DialSettings(**arguments)


def settings_of(**arguments: Any) -> DialSettings:  # noqa: ANN401  (those of DialSettings)
    """``DialSettings`` of these arguments, shared by the dials that have the same ones.

    Checking them anew for each cost a twentieth of an open (``python benchmarks/opening.py``).

    Raises:
        ConfigurationError: an argument is wrong.
    """
    with suppress(TypeError):
        return _checked(**arguments)
    # One has no hash, as headers have none.
    return DialSettings(**arguments)


def check_sources(
    session: object,
    identity: object,
    room_connected: object,
    token: object,
    on_open: object,
    require: object,
    header_names: object,
    observer: object,
    trace_headers: object,
) -> None:
    """Check the arguments of a connection that it reads, calls or waits for.

    Raises:
        ConfigurationError: one is of the wrong kind.
    """
    if not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError("session is no aiohttp.ClientSession")
    check_caller(identity, room_connected, header_names)
    if not (token is None or callable(token) or is_token(token)):
        raise ConfigurationError("token is no callable and no str that can stand in a header")
    if not isinstance(require, AttributionLevel):
        raise ConfigurationError("require is no AttributionLevel")
    hooks = {"on_open": on_open, "observer": observer, "trace_headers": trace_headers}
    for name, hook in hooks.items():
        if not (hook is None or callable(hook)):
            raise ConfigurationError(f"{name} is not callable")


def check_caller(identity: object, room_connected: object, header_names: object) -> None:
    """Check the arguments that tell who calls.

    Raises:
        ConfigurationError: one is of the wrong kind.
    """
    if not (identity is None or isinstance(identity, AgentIdentity) or callable(identity)):
        raise ConfigurationError("identity is neither an AgentIdentity nor a callable")
    if not (room_connected is None or isinstance(room_connected, RoomConnected)):
        raise ConfigurationError("room_connected has no is_set() and wait()")
    if not isinstance(header_names, HeaderNames):
        raise ConfigurationError("header_names is no HeaderNames")


def check_wait(seconds: object) -> float | None:
    """``connect_wait`` as seconds of 0 or more, or None for ever.

    Raises:
        ConfigurationError: it is negative, not finite or no number.
    """
    return None if seconds is None else check_seconds("connect_wait", seconds, zero=True)


def check_url(url: str | URL, name: str = "url") -> URL:
    """``url`` parsed: absolute, ``ws``, ``wss``, ``http`` or ``https``, no user in it.

    Raises:
        ConfigurationError: it is anything else; the message has ``name``.
    """
    parsed = _parse(name, url)
    if parsed.scheme not in _SCHEMES:
        raise ConfigurationError(f"{name} has a scheme that is not ws, wss, http or https")
    if not parsed.host:
        raise ConfigurationError(f"{name} has no host")
    if parsed.user is not None or parsed.password is not None:
        raise ConfigurationError(f"{name} holds a user or password; pass token= instead")
    return parsed


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """``value`` as finite seconds above 0 (or 0 too, with ``zero``).

    Raises:
        ConfigurationError: it is not; the message has ``name``.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        fits = 0 < value <= sys.float_info.max or (zero and value == 0)
        if fits:
            return float(value)
    least = "0 or more" if zero else "above 0"
    raise ConfigurationError(f"{name} is not a finite number of seconds {least}")


def check_headers(headers: Mapping[str, str] | None, reserved: Iterable[str]) -> dict[str, str]:
    """The caller's headers, able to be sent and free of ``reserved`` names in any case.

    Raises:
        ConfigurationError: a name or value is not; the message has the name at most.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigurationError("headers is no mapping of str to str")
    taken = {name.lower() for name in reserved}
    seen: set[str] = set()
    for name, value in headers.items():
        if not is_header_name(name):
            raise ConfigurationError("headers has a name that is no HTTP field name")
        lower = name.lower()
        if lower in taken:
            raise ConfigurationError(f"headers has {name}, which this package sets itself")
        if lower in _HANDSHAKE_NAMES or lower.startswith(_HANDSHAKE_PREFIX):
            raise ConfigurationError(f"headers has {name}, which belongs to the handshake")
        if lower in seen:
            raise ConfigurationError(f"headers has {name} twice, in different case")
        if not is_header_value(value):
            raise ConfigurationError(f"headers has a value for {name} that cannot be sent")
        seen.add(lower)
    return dict(headers)


def _has_authorization(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "authorization" for name in headers)


def is_header_value(value: object) -> bool:
    """Whether ``value`` is a str of printable ASCII, short enough for a header."""
    return isinstance(value, str) and len(value) <= MAX_HEADER_VALUE and is_printable_ascii(value)


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether ``host`` is ``localhost`` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _parse(name: str, url: object) -> URL:
    if not isinstance(url, str | URL):
        raise ConfigurationError(f"{name} is neither str nor yarl.URL")
    parsed: URL | None
    try:
        parsed = URL(url)
        parsed.port  # noqa: B018  (yarl looks at the port only when asked)
    except (ValueError, IndexError):  # the second, in yarl 1.25, for "[]@" as the authority
        parsed = None
    # Raised here and not above: yarl's own error, which would be the context, has the URL.
    if parsed is None:
        raise ConfigurationError(f"{name} cannot be parsed")
    return parsed


def _check_security(url: URL, ssl: TlsSetting, *, carries_token: bool) -> None:
    if carries_token and url.scheme in _INSECURE_SCHEMES and not is_loopback(url.host or ""):
        raise ConfigurationError(
            "token would go over an unencrypted url; use wss:// or pass allow_insecure=True"
        )
    if ssl is False:
        raise ConfigurationError(
            "ssl=False checks no certificate; pass a context, or allow_insecure=True"
        )


def _check_tls(ssl: TlsSetting) -> TlsSetting:
    if not isinstance(ssl, TlsSetting):
        raise ConfigurationError("ssl is no ssl.SSLContext, aiohttp.Fingerprint or bool")
    return ssl


def _check_protocols(protocols: Iterable[str]) -> tuple[str, ...]:
    if protocols == ():
        return ()
    names = None if isinstance(protocols, str) else tuple(protocols)
    if names is None or not all(is_header_name(name) for name in names):
        raise ConfigurationError("protocols is no sequence of subprotocol names")
    return names


def _check_size(size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise ConfigurationError("max_msg_size is not a number of bytes above 0")
    return size
