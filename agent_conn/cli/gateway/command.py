"""`agent-conn gateway`: the local gateway, served until it is stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import typer
from rich.console import Console

from agent_conn.cli.gateway.activity import shown_activity
from agent_conn.cli.gateway.credentials import (
    INSPECTOR_VARIABLE,
    KEY_VARIABLE,
    SECRET_VARIABLE,
    TOKEN_VARIABLE,
    Credentials,
)
from agent_conn.cli.gateway.inspecting import inspector_for
from agent_conn.cli.gateway.options import (
    DEFAULT_PORT,
    AllowRemoteOption,
    CaFileOption,
    Engine,
    EngineOption,
    HostOption,
    InspectOption,
    InspectorTokenOption,
    KeyOption,
    PortOption,
    QuietOption,
    ReplyOption,
    SecretOption,
    TlsOption,
    TokenOption,
    TranscriptOption,
)
from agent_conn.cli.gateway.serving import CannotServe, ServeSettings, serve
from agent_conn.cli.status import Finished, Status

GATEWAY_HELP = f"""Serve speech, chat completions, and a page that shows who called.

What to export goes to stdout, everything else to stderr. Ctrl-C stops it.
In a script:

eval "$(agent-conn gateway --quiet &)" … kill "$AGENT_CONN_GATEWAY_PID"

Command lines show in ps, so secrets are better set in the environment:
{TOKEN_VARIABLE}, {KEY_VARIABLE}, {SECRET_VARIABLE},
{INSPECTOR_VARIABLE}. Options win.
"""


# click's own text for an argument quotes it, and it may be a token.
GATEWAY_SETTINGS = {"allow_extra_args": True}


def serve_gateway(
    context: typer.Context,
    *,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    engine: EngineOption = None,
    transcript: TranscriptOption = None,
    reply: ReplyOption = None,
    token: TokenOption = None,
    api_key: KeyOption = None,
    api_secret: SecretOption = None,
    inspect: InspectOption = None,
    allow_remote: AllowRemoteOption = False,
    inspector_token: InspectorTokenOption = None,
    quiet: QuietOption = False,
) -> None:
    """Check what was asked for, and serve it."""
    if context.args:
        raise typer.BadParameter("gateway takes options alone: see agent-conn gateway --help")
    try:
        settings = ServeSettings(
            host=host,
            port=port,
            tls=tls,
            ca_file=ca_file,
            engine=Engine.SCRIPTED if transcript and engine is None else engine,
            transcripts=tuple(transcript or ()),
            replies=tuple(reply or ()),
            credentials=Credentials(token, api_key, api_secret),
            inspector=inspector_for(
                host, inspect=inspect, allow_remote=allow_remote, token=inspector_token
            ),
            quiet=quiet,
        )
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    _serve(settings)


def _serve(settings: ServeSettings) -> None:
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    try:
        with shown_activity(console, quiet=settings.quiet), suppress(KeyboardInterrupt):
            asyncio.run(serve(settings, console))
    except CannotServe as reason:
        console.print(f"agent-conn gateway: {reason}", soft_wrap=True)
        raise Finished(Status.UNAVAILABLE) from None
    raise Finished(Status.OK)
