"""Check a command line, before anything is sent, and make of it what is to be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from ssl import SSLContext

from yarl import URL

from agent_conn._options import check_seconds, is_loopback, is_token
from agent_conn.cli.probe.dial import Dial
from agent_conn.cli.probe.findings import Target
from agent_conn.cli.probe.secrets import Secrets
from agent_conn.cli.probe.target import (
    URL_VARIABLE,
    Credentials,
    find_credentials,
    make_identity,
    shown,
    websocket_url,
)
from agent_conn.cli.probe.tls import make_context
from agent_conn.errors import ConfigurationError


@dataclass(frozen=True, slots=True, repr=False)
class Options:
    """The options of the command, as they were given. ``timeout`` is in seconds."""

    url: str | None
    api_key: str | None
    api_secret: str | None
    token: str | None
    room: str | None
    agent: str | None
    job: str | None
    timeout: float
    ca: Path | None
    insecure: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to probe: by ``dial``, or, where that is None, a gateway to be started first."""

    target: Target
    dial: Dial | None
    make_dial: Callable[..., Dial]
    """Makes a dial of a ``url``, a ``token`` and a ``context``."""


_NEEDS_URL = ("api_key", "api_secret", "token", "ca", "insecure")


def make_plan(options: Options, environment: Mapping[str, str]) -> Plan:
    """What `options` ask for, with credentials from `environment` where they give none.

    Raises:
        ConfigurationError: one of them is wrong.
        ImportError: a token is to be minted, and PyJWT is not installed.
    """
    identity = make_identity(options.job, options.room, options.agent)
    secrets = Secrets(options.token, options.api_key, options.api_secret)
    make_dial = partial(
        Dial,
        identity=identity,
        timeout=check_seconds("--timeout", options.timeout),
        insecure=options.insecure,
        secrets=secrets,
    )
    dial, credentials = None, Credentials("of its own")
    given = options.url if options.url is not None else environment.get(URL_VARIABLE)
    if not given and options.url is None:
        _check_own(options)
    else:
        url = _url(options, given or "")
        credentials = find_credentials(
            token=options.token,
            api_key=options.api_key,
            api_secret=options.api_secret,
            environment=environment,
        )
        dial = make_dial(
            url=url, token=_token(credentials, url, options, secrets), context=_tls(url, options)
        )
    target = Target(
        shown_url="" if dial is None else shown(dial.url),
        url_source=URL_VARIABLE if dial is not None and options.url is None else None,
        own_gateway=dial is None,
        credentials=credentials.source,
        mints=credentials.api_key is not None,
        attribution=identity.level.name,
        secure=dial is None or dial.context is not None,
        loopback=dial is None or is_loopback(dial.url.host or ""),
    )
    return Plan(target, dial, make_dial)


def _url(options: Options, given: str) -> URL:
    try:
        return websocket_url(given)
    except ConfigurationError as wrong:
        if options.url is not None:
            raise
        raise ConfigurationError(f"{URL_VARIABLE}: {wrong}") from None


def _check_own(options: Options) -> None:
    for item in fields(options):
        if item.name in _NEEDS_URL and getattr(options, item.name):
            option = f"--{item.name.replace('_', '-')}"
            raise ConfigurationError(f"{option} needs a URL: pass one, or set {URL_VARIABLE}")


def _token(
    credentials: Credentials, url: URL, options: Options, secrets: Secrets
) -> Callable[[], str] | None:
    """Return what makes a token for each dial. One is made at once, to report a wrong one early."""
    secrets.add(credentials.token, credentials.api_key, credentials.api_secret)
    secrets.add_query(url)
    if credentials.source is None:
        return None
    if url.scheme == "ws" and not is_loopback(url.host or "") and not options.insecure:
        raise ConfigurationError(
            f"the token ({credentials.source}) would go unencrypted: use wss://, or --insecure"
        )
    token = credentials.mint()
    if not is_token(token):
        raise ConfigurationError(
            f"the token ({credentials.source}) must be printable ASCII without blanks"
        )

    def mint() -> str:
        minted = credentials.mint()
        secrets.add(minted)
        return minted

    return mint


def _tls(url: URL, options: Options) -> SSLContext | None:
    if url.scheme == "ws":
        if options.ca is not None:
            raise ConfigurationError("--ca needs a URL of wss:// or https://")
        return None
    try:
        return make_context(options.ca, insecure=options.insecure)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise ConfigurationError(f"--ca must name a PEM file with a certificate: {reason}")
