"""`agent-conn probe`: where the time goes as a connection opens, and why one does not open."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from ssl import SSLContext
from typing import Annotated

import typer
from rich.console import Console
from yarl import URL

from agent_conn.cli.probing.as_json import as_json
from agent_conn.cli.probing.dial import Dial
from agent_conn.cli.probing.findings import Findings, Target
from agent_conn.cli.probing.page import print_page
from agent_conn.cli.probing.progress import ProgressReport
from agent_conn.cli.probing.run import probe_all, start_gateway
from agent_conn.cli.probing.secrets import Secrets
from agent_conn.cli.probing.target import (
    Credentials,
    find_credentials,
    make_identity,
    shown,
    websocket_url,
)
from agent_conn.cli.probing.tls import make_context
from agent_conn.cli.status import Finished
from agent_conn.errors import ConfigurationError
from agent_conn.gateway import mint_token

_OWN_GATEWAY = "a gateway of its own"


def probe(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="wss://…/v1/stt, or a base URL as in LIVEKIT_INFERENCE_URL: …/v1 means its /stt. "
            "Without one, a gateway is started on this machine and probed.",
            show_default=False,
        ),
    ] = None,
    *,
    api_key: Annotated[str | None, typer.Option(help="To mint tokens with.")] = None,
    api_secret: Annotated[str | None, typer.Option(help="Of that key.")] = None,
    token: Annotated[str | None, typer.Option(help="A token, sent as it is.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Connections, one after another.")] = 1,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="For each, to its first message.")
    ] = 10.0,
    room: Annotated[str | None, typer.Option(metavar="ID", help="Room id to send.")] = None,
    agent: Annotated[str | None, typer.Option(metavar="ID", help="Agent id to send.")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Job id to send.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM file of the only authorities to trust."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Check no certificate, and allow a token over ws://."),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; times are in seconds.")
    ] = False,
) -> None:
    """Open connections to a gateway: what each step takes, and what to do.

    /stt and /tts are asked for a session, without audio; on another path a
    first message is listened for. It dials directly, through no proxy.

    Command lines show in ps, so credentials are better set in the environment:
    LIVEKIT_INFERENCE_TOKEN, or LIVEKIT_INFERENCE_API_KEY and _API_SECRET,
    else LIVEKIT_API_KEY and LIVEKIT_API_SECRET. Options win.

    Exit status: 0 all opened, 1 one was rejected, 2 one was not reached,
    64 wrong usage, 130 ended by Ctrl-C.
    """
    secrets = Secrets(token, api_key, api_secret)
    try:
        identity = make_identity(job, room, agent)
        make_dial = partial(
            Dial, identity=identity, timeout=timeout, insecure=insecure, secrets=secrets
        )
        if url is None:
            _check_own(
                token=token, api_key=api_key, api_secret=api_secret, ca=ca, insecure=insecure
            )
            credentials, dial = Credentials("of its own"), None
        else:
            credentials = find_credentials(
                token=token, api_key=api_key, api_secret=api_secret, environment=os.environ
            )
            websocket = websocket_url(url)
            secrets.add_query(websocket)
            dial = make_dial(
                url=websocket,
                token=_token_source(credentials, secrets),
                context=_context(websocket, ca, insecure=insecure),
            )
        target = Target(
            shown_url=_OWN_GATEWAY if dial is None else shown(dial.url),
            credentials=credentials.source,
            mints=credentials.api_key is not None,
            attribution=identity.level.name,
            secure=dial is None or dial.context is not None,
        )
        findings = Findings(target, requested=count)
        _run(findings, dial, make_dial)
    except (ConfigurationError, ImportError) as error:
        raise typer.BadParameter(str(error)) from None
    _show(findings, as_object=json_output)
    raise Finished(findings.status())


def _run(findings: Findings, dial: Dial | None, make_dial: Callable[..., Dial]) -> None:
    """Probe until done, or until Ctrl-C."""
    with ProgressReport(Console(stderr=True), findings.requested) as progress:
        try:
            asyncio.run(_probe(findings, dial, make_dial, progress.done))
        except KeyboardInterrupt:
            findings.interrupted = True


async def _probe(
    findings: Findings,
    dial: Dial | None,
    make_dial: Callable[..., Dial],
    on_attempt: Callable[[int], None],
) -> None:
    async with AsyncExitStack() as stack:
        if dial is None:
            dial = await start_gateway(stack, make_dial)
        await probe_all(dial, findings, on_attempt)


def _check_own(**options: object) -> None:
    for name, value in options.items():
        if value:
            raise ConfigurationError(f"--{name.replace('_', '-')} goes with a URL")


def _token_source(credentials: Credentials, secrets: Secrets) -> Callable[[], str] | None:
    """What mints a token for each dial; called once here, where a wrong key is better told."""
    fixed, key, secret = credentials.token, credentials.api_key, credentials.api_secret
    secrets.add(fixed, key, secret)
    if fixed is not None:
        return lambda: fixed
    if key is None or secret is None:
        return None

    def mint() -> str:
        minted = mint_token(key, secret)
        secrets.add(minted)
        return minted

    mint()
    return mint


def _context(url: URL, ca: Path | None, *, insecure: bool) -> SSLContext | None:
    if url.scheme != "wss":
        if ca is not None:
            raise ConfigurationError("--ca goes with wss:// or https://")
        return None
    try:
        return make_context(ca, insecure=insecure)
    except OSError as error:
        raise ConfigurationError(
            f"--ca: no certificate can be read: {error.strerror or type(error).__name__}"
        ) from None


def _show(findings: Findings, *, as_object: bool) -> None:
    now = datetime.now(UTC)
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the terminal's encoding lacks is no reason to show nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_object:
        typer.echo(json.dumps(as_json(findings, now)))
    else:
        print_page(Console(highlight=False, markup=False, emoji=False), findings, now)
