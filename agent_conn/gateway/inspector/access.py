"""Who may see the inspector: which Host, which Origin, which token; and what browsers may do."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping

from aiohttp import hdrs, web

from agent_conn._options import is_loopback
from agent_conn.errors import ConfigurationError
from agent_conn.gateway.server.guesses import GuessLimit
from agent_conn.gateway.server.hosts import HostNames

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


class Refused(Exception):
    """A request that the inspector does not serve, and the status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Access:
    """Decides which requests reach the inspector of a gateway that listens on `host`.

    Without `token` it serves every request over loopback, but for those of another site's page or
    of a page whose name was rebound to this address. With `token` it serves a browser that has
    shown it once and has a cookie since, which is not the token.

    Raises:
        ConfigurationError: `host` is not loopback and `allow_remote` or `token` is missing.
    """

    def __init__(self, host: str, token: str | None, *, allow_remote: bool) -> None:
        if not is_loopback(host):
            if not allow_remote:
                raise ConfigurationError(
                    f"an inspector on host {host!r} needs allow_remote=True: others reach it"
                )
            if token is None:
                raise ConfigurationError(
                    "an inspector with allow_remote=True on such a host needs a token"
                )
        self._hosts = HostNames(host)
        self._token = token
        self._guesses = GuessLimit()
        self._sessions: list[str] = []

    @property
    def needs_token(self) -> bool:
        """Whether there is a token to show."""
        return self._token is not None

    def check_host(self, request: web.Request) -> None:
        """Refuse a request whose Host header names another host (DNS rebinding).

        Raises:
            Refused: it names another.
        """
        if not self._hosts.include(request.headers.get(hdrs.HOST, "")):
            raise Refused(403, "the Host header names another host")

    def check_site(self, request: web.Request) -> None:
        """Refuse what another site's page sends.

        A browser says so in `Sec-Fetch-Site` or `Origin`. A request that changes something must
        name the inspector's own origin.

        Raises:
            Refused: the request does not come from the inspector's own page.
        """
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refused(403, "the request comes from another site's page")
        own = f"{request.scheme}://{request.headers.get(hdrs.HOST, '')}"
        changes = request.method not in (hdrs.METH_GET, hdrs.METH_HEAD)
        if request.headers.get(hdrs.ORIGIN, None if changes else own) != own:
            raise Refused(403, "the Origin header must name the inspector's own origin")

    def check_session(self, request: web.Request) -> None:
        """Refuse a browser that has not shown the token.

        Raises:
            Refused: it has not, or there are too many since.
        """
        if self._token is None:
            return
        given = request.cookies.get(_cookie_name(request), "")
        if not any(_same(given, session) for session in self._sessions):
            raise Refused(401, "the inspector needs its token: reload the page and give it")

    def admit(self, request: web.Request, token: str, response: web.Response) -> bool:
        """Begin a session on `response` if `token` is right; whether it is.

        Raises:
            Refused: too many wrong tokens came from this address.
        """
        if self._token is None:
            return False
        address, now = request.remote or "", asyncio.get_running_loop().time()
        if wait := self._guesses.wait(address, now):
            raise Refused(429, f"too many wrong tokens from this address; wait {wait} s")
        if not _same(token, self._token):
            self._guesses.wrong(address, now)
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


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape")
    )
