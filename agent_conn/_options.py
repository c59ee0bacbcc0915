"""Every argument of a connection, checked before any I/O."""

from __future__ import annotations

import inspect
import socket
import ssl as ssl_module
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import aiohttp
from yarl import URL

from agent_conn._checks import check_callable, told
from agent_conn._identity import (
    AgentIdentity,
    HeaderNames,
    is_header_name,
    is_printable_ascii,
)
from agent_conn._room import RoomConnected
from agent_conn._usage import UsageMeter
from agent_conn.errors import ConfigurationError

T = TypeVar("T")

MAX_HEADER_VALUE = 8190
"""Bytes of one header that aiohttp's and most other servers take."""
MAX_TOKEN = 8000
"""Characters of a token; with its header's name it must pass servers' 8 KiB for a header."""

URL_EXAMPLE = "wss://gateway.example/v1"
_SCHEMES = frozenset({"ws", "wss", "http", "https"})
_INSECURE_SCHEMES = frozenset({"ws", "http"})
_HANDSHAKE_NAMES = frozenset(
    {"host", "connection", "upgrade", "content-length", "transfer-encoding"}
)
_HANDSHAKE_PREFIX = "sec-websocket-"
_WINDOW_BITS = 15
_NUMBER = (int, float)
_LOOPBACK_6 = socket.inet_pton(socket.AF_INET6, "::1")

Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
"""What an aiohttp client middleware passes a request on to."""
TlsSetting = ssl_module.SSLContext | aiohttp.Fingerprint | bool
"""What aiohttp takes as ``ssl=``; True is the connector's own setting."""
TokenSource = str | Callable[[], str | Awaitable[str]]
"""A bearer token, or what gives a fresh one, sync or async."""
UrlSource = str | URL | Callable[[], str | URL | Awaitable[str | URL]]
"""Where to dial, or what gives it, sync or async."""
HeadersSource = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Further headers, or what gives them, sync or async."""


class DialOptions:
    """Checked options of a dial. Its repr shows none of them, since some are secret.

    Raises:
        ConfigurationError: an argument is wrong; the message names it, never a secret.
    """

    def __init__(
        self,
        *,
        url: UrlSource,
        token: TokenSource | None,
        headers: HeadersSource | None,
        header_names: HeaderNames,
        open_timeout: float,
        close_timeout: float,
        heartbeat: float | None,
        network_timeout: float | None,
        protocols: Iterable[str],
        compress: bool,
        max_msg_size: int,
        ssl: TlsSetting,
        server_hostname: str | None,
        proxy: str | URL | None,
        proxy_headers: Mapping[str, str] | None,
        allow_insecure: bool,
        usage: UsageMeter | None,
    ) -> None:
        self.allow_insecure = allow_insecure
        if usage is not None:
            check_type("usage", usage, UsageMeter)
        self.usage = usage
        if token is not None:
            _check_token(token)
        self.token = token
        self.header_names = header_names
        reserved = header_names.all()
        self.reserved_names = reserved if token is None else (*reserved, "Authorization")
        self.headers: dict[str, str] | Callable[[], object] = {}
        if headers is not None:
            taken = self.reserved_names
            self.headers = headers if callable(headers) else check_headers(headers, taken)
        self.url = url if callable(url) else check_url(url)
        given = () if callable(self.headers) else self.headers
        self.carries_token = token is not None or "authorization" in map(str.lower, given)
        """Whether an ``Authorization`` header goes out that the caller gave, as far as is known."""
        if self.carries_token and isinstance(self.url, URL):
            self.check_clear(self.url)
        self.open_timeout = check_seconds("open_timeout", open_timeout)
        self.close_timeout = check_seconds("close_timeout", close_timeout)
        self.heartbeat = None if heartbeat is None else check_seconds("heartbeat", heartbeat)
        self.network_timeout = (
            None if network_timeout is None else check_seconds("network_timeout", network_timeout)
        )
        self.protocols = () if protocols == () else _check_protocols(protocols)
        self.compress = _WINDOW_BITS if compress else 0
        self.max_msg_size = _check_size(max_msg_size)
        self.ssl = ssl if ssl is True else _check_tls(ssl, allow_insecure=allow_insecure)
        self.server_hostname = (
            None if server_hostname is None else _check_server_hostname(server_hostname)
        )
        self.proxy = None if proxy is None else check_proxy(_parse("proxy", proxy))
        self.proxy_headers = (
            None if proxy_headers is None else check_headers(proxy_headers, (), "proxy_headers")
        )

    def check_clear(self, url: URL, proxy: URL | None = None) -> None:
        """Refuse to send a token to ``url`` unencrypted, other than within this machine.

        Raises:
            ConfigurationError: a host would see it, or a proxy on the way.
        """
        if self.allow_insecure or url.scheme not in _INSECURE_SCHEMES:
            return
        if not is_loopback(url.host or ""):
            raise ConfigurationError(
                "url must be encrypted where a token is sent: use wss://, or pass "
                "allow_insecure=True"
            )
        if proxy is not None and not is_loopback(proxy.host or ""):
            raise ConfigurationError(
                "proxy must be on this machine where a token is sent unencrypted: use wss://, or "
                "pass allow_insecure=True"
            )

    def check_all_clear(self, urls: Iterable[URL]) -> None:
        """Refuse to send a token to any of ``urls`` unencrypted, as ``check_clear`` does."""
        for url in urls:
            self.check_clear(url)


def check_caller(identity: object, room_connected: object, header_names: object) -> None:
    """Check the arguments that tell who calls.

    Raises:
        ConfigurationError: one is of the wrong kind.
    """
    if not (identity is None or isinstance(identity, AgentIdentity)):
        wanted = "identity must be an AgentIdentity or a callable that gives one"
        if inspect.iscoroutinefunction(identity):
            raise ConfigurationError(f"{wanted}, got an async def: make it a def")
        if not callable(identity):
            raise ConfigurationError(f"{wanted}, got {kind(identity)}")
    if room_connected is not None:
        check_room(room_connected)
    check_type("header_names", header_names, HeaderNames)


def check_room(room_connected: object) -> None:
    """Check that ``room_connected`` can be waited for by a task.

    Raises:
        ConfigurationError: it cannot.
    """
    wanted = "room_connected must have is_set() and async wait(), as asyncio.Event has"
    if not isinstance(room_connected, RoomConnected):
        raise ConfigurationError(f"{wanted}, got {kind(room_connected)}")
    if not inspect.iscoroutinefunction(room_connected.wait):
        raise ConfigurationError(
            f"{wanted}, got {kind(room_connected)}, whose wait() would hold up the event loop"
        )


def check_hooks(**hooks: object) -> None:
    """Check that each is None or can be called, and that none but ``on_open`` is async.

    Raises:
        ConfigurationError: one is not.
    """
    for name, hook in hooks.items():
        if hook is None:
            continue
        check_callable(name, hook)
        if name != "on_open" and inspect.iscoroutinefunction(hook):
            raise ConfigurationError(f"{name} must be a def, got an async def: nobody awaits it")


def check_type(name: str, value: T, wanted: type[T]) -> T:
    """``value``, which is a ``wanted``.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, wanted):
        raise ConfigurationError(f"{name} must be of {wanted.__name__}, got {kind(value)}")
    return value


def check_wait(seconds: object) -> float | None:
    """``connect_wait`` as seconds of 0 or more, or None for ever.

    Raises:
        ConfigurationError: it is negative, not finite or not a number.
    """
    return None if seconds is None else check_seconds("connect_wait", seconds, zero=True)


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """``value`` as finite seconds above 0 (or 0 too, with ``zero``).

    Raises:
        ConfigurationError: it is not; the message has ``name``.
    """
    if isinstance(value, _NUMBER) and not isinstance(value, bool):
        fits = 0 < value <= sys.float_info.max or (zero and value == 0)
        if fits:
            return float(value)
    least = "of 0 or more" if zero else "above 0"
    raise ConfigurationError(
        f"{name} must be a finite number of seconds {least}, got {told(value)}"
    )


def check_url(url: object, name: str = "url") -> URL:
    """``url`` parsed: absolute, ``ws``, ``wss``, ``http`` or ``https``, no user in it.

    Raises:
        ConfigurationError: it is anything else; the message has ``name``.
    """
    parsed = _parse(name, url)
    if parsed.scheme not in _SCHEMES:
        raise ConfigurationError(f"{name} needs a scheme of ws, wss, http or https: {URL_EXAMPLE}")
    if not parsed.host:
        raise ConfigurationError(f"{name} needs a host: {URL_EXAMPLE}")
    if parsed.user is not None or parsed.password is not None:
        raise ConfigurationError(f"{name} must hold no user or password: pass token= instead")
    return parsed


def check_proxy(proxy: URL) -> URL:
    """``proxy``, which aiohttp can go through.

    Raises:
        ConfigurationError: it is neither http nor https.
    """
    if proxy.scheme not in {"http", "https"} or not proxy.host:
        shown = f"{proxy.scheme}://" if proxy.scheme else "no scheme"
        raise ConfigurationError(
            f"proxy must be an http:// or https:// URL with a host, got {shown}"
        )
    return proxy


def check_headers(
    headers: object, reserved: Iterable[str], argument: str = "headers"
) -> dict[str, str]:
    """The caller's headers, able to be sent and free of ``reserved`` names in any case.

    Raises:
        ConfigurationError: a name or value is not; the message has the name at most.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"{argument} must be a mapping of str to str, got {kind(headers)}")
    taken = {name.lower() for name in reserved}
    seen: set[str] = set()
    for name, value in headers.items():
        if not is_header_name(name):
            raise ConfigurationError(
                f"{argument} must have HTTP field names (letters, digits and dashes)"
            )
        lower = name.lower()
        if lower in taken:
            raise ConfigurationError(f"{argument} must not have {name}, which the connection sets")
        if lower in _HANDSHAKE_NAMES or lower.startswith(_HANDSHAKE_PREFIX):
            raise ConfigurationError(
                f"{argument} must not have {name}, which belongs to the handshake"
            )
        if lower in seen:
            raise ConfigurationError(
                f"{argument} must have each name once, got {name} twice in different case"
            )
        if not is_header_value(value):
            raise ConfigurationError(
                f"{argument} must have a str of printable ASCII for {name}, of at most "
                f"{MAX_HEADER_VALUE} characters"
            )
        seen.add(lower)
    return dict(headers)


def is_header_value(value: object) -> bool:
    """Whether ``value`` is a str of printable ASCII, short enough for a header."""
    return isinstance(value, str) and len(value) <= MAX_HEADER_VALUE and is_printable_ascii(value)


def is_token(value: object) -> bool:
    """Whether ``value`` can stand behind ``Bearer``: printable ASCII without spaces."""
    if not isinstance(value, str) or not value or len(value) > MAX_TOKEN:
        return False
    return is_printable_ascii(value) and " " not in value


def is_loopback(host: str) -> bool:
    """Whether ``host`` is ``localhost`` or a loopback address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        if ":" in host:
            return socket.inet_pton(socket.AF_INET6, host) == _LOOPBACK_6
        return socket.inet_pton(socket.AF_INET, host)[0] == 127
    except OSError:
        return False


def kind(value: object) -> str:
    """What ``value`` is, for a message: its type, never its text."""
    return "None" if value is None else type(value).__name__


def _parse(name: str, url: object) -> URL:
    if not isinstance(url, str | URL):
        raise ConfigurationError(f"{name} must be a str or yarl.URL, got {kind(url)}")
    parsed: URL | None
    try:
        parsed = URL(url)
        parsed.port  # noqa: B018  (yarl looks at the port only when asked)
    except (ValueError, IndexError):  # the second, in yarl 1.25, for "[]@" as the authority
        parsed = None
    # Raised here and not above: yarl's own error, which would be the context, has the URL.
    if parsed is None:
        raise ConfigurationError(f"{name} must be a valid URL: {URL_EXAMPLE}")
    return parsed


def _check_token(token: object) -> None:
    if callable(token) or is_token(token):
        return
    wanted = "token must be a callable or a str valid in a header"
    if isinstance(token, str) and token.lower().startswith("bearer "):
        raise ConfigurationError(f'{wanted}, got one that starts with "Bearer": leave that out')
    raise ConfigurationError(
        f"{wanted}, got {'another str' if isinstance(token, str) else kind(token)}"
    )


def _check_tls(ssl: object, *, allow_insecure: bool) -> TlsSetting:
    if not isinstance(ssl, TlsSetting):
        raise ConfigurationError(
            f"ssl must be an ssl.SSLContext, an aiohttp.Fingerprint or a bool, got {kind(ssl)}"
        )
    if ssl is False and not allow_insecure:
        raise ConfigurationError(
            "ssl must not be False, which checks no certificate: pass an SSLContext, or "
            "allow_insecure=True"
        )
    return ssl


def _check_server_hostname(name: object) -> str:
    if isinstance(name, str) and name and is_printable_ascii(name):
        return name
    raise ConfigurationError(f"server_hostname must be a host's name, got {kind(name)}")


def _check_protocols(protocols: object) -> tuple[str, ...]:
    names = tuple(protocols) if isinstance(protocols, Iterable) else (protocols,)
    if isinstance(protocols, str) or not all(is_header_name(name) for name in names):
        raise ConfigurationError(
            f"protocols must be a sequence of subprotocol names, got {kind(protocols)}"
        )
    return names


def _check_size(size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        got = size if isinstance(size, int | float) else kind(size)
        raise ConfigurationError(f"max_msg_size must be a number of bytes above 0, got {got}")
    return size
