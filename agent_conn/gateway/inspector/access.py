"""Who may see the inspector: which Host, which Origin, which token; and what browsers may do."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping

from aiohttp import hdrs, web

from agent_conn._identity import is_printable_ascii
from agent_conn.errors import ConfigurationError

SESSION_SECONDS = 12 * 3600
MAX_SESSIONS = 64

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine's own and nobody else's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Refused(Exception):
    """A request that the inspector does not serve, and the status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Access:
    """Decides which requests reach the inspector of a gateway that listens on `host`.

    Without `token` everything that comes over loopback may; a page of another site may not,
    nor one that had its name rebound to this address. With `token`, only a browser that has
    shown it once, and then by a cookie that is not the token.

    Raises:
        ConfigurationError: `host` is not loopback and `allow_remote` or `token` is missing, or
            `token` cannot be one.
    """

    def __init__(self, host: str, token: str | None, *, allow_remote: bool) -> None:
        if token is not None and not (token.strip() and is_printable_ascii(token)):
            raise ConfigurationError("inspector token must be printable ASCII, and not blank")
        if not is_loopback(host):
            if not allow_remote:
                raise ConfigurationError(
                    "inspector: the host is not loopback, which takes allow_remote=True"
                )
            if token is None:
                raise ConfigurationError("inspector: allow_remote takes a token")
        self._host = host
        self._token = token
        self._sessions: list[str] = []

    @property
    def needs_token(self) -> bool:
        """Whether there is a token to show."""
        return self._token is not None

    def check_host(self, request: web.Request) -> None:
        """Refuse a Host that is a name of somebody else's (DNS rebinding).

        Raises:
            Refused: it is one.
        """
        name = _host_name(request.headers.get(hdrs.HOST, ""))
        if is_loopback(name) or name == self._host.lower():
            return
        # An address cannot be rebound; a remote one is reached by addresses not known here.
        if not is_loopback(self._host) and _is_address(name):
            return
        raise Refused(403, "the Host header names another host")

    def check_origin(self, request: web.Request) -> None:
        """Refuse what another site's page sends.

        Raises:
            Refused: the request does not come from the inspector's own page.
        """
        own = f"{request.scheme}://{request.headers.get(hdrs.HOST, '')}"
        if request.headers.get(hdrs.ORIGIN) != own:
            raise Refused(403, "the Origin header names another origin, or none")

    def check_session(self, request: web.Request) -> None:
        """Refuse a browser that has not shown the token.

        Raises:
            Refused: it has not, or there are too many since.
        """
        if self._token is None:
            return
        given = request.cookies.get(_cookie_name(request), "")
        if not any(_same(given, session) for session in self._sessions):
            raise Refused(401, "the inspector needs its token")

    def admit(self, request: web.Request, token: str, response: web.Response) -> bool:
        """Begin a session on `response` if `token` is right; whether it is."""
        if self._token is None or not _same(token, self._token):
            return False
        session = secrets.token_urlsafe(32)
        self._sessions = [*self._sessions[1 - MAX_SESSIONS :], session]
        response.set_cookie(
            _cookie_name(request),
            session,
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return True


def _cookie_name(request: web.Request) -> str:
    # Cookies know no ports, and several gateways may run on one host.
    _, _, port = request.headers.get(hdrs.HOST, "").rpartition(":")
    return f"agent_conn_inspector_{port}" if port.isdigit() else "agent_conn_inspector"


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape")
    )
