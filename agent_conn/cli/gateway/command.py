"""`agent-conn gateway`: the local gateway, served until it is stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated

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
from agent_conn.cli.gateway.serving import CannotServe, Engine, Served, serve
from agent_conn.cli.status import Finished, Status

DEFAULT_PORT = 7878


def serve_gateway(
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine it needs credentials.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0 takes a free one.")
    ] = DEFAULT_PORT,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve TLS, with an authority made for this run.")
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write what clients must trust here, and leave it."),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(help="Default: speech where its extra is installed, else scripted."),
    ] = None,
    transcript: Annotated[
        list[str] | None, typer.Option(help="What the scripted engine hears; again for the next.")
    ] = None,
    reply: Annotated[
        list[str] | None,
        typer.Option(help="What a chat is answered; again for the next. Default: what was said."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN_VARIABLE, help="Open to this very token; LiveKit's clients send none such."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar=KEY_VARIABLE, help="Open to inference tokens of this key."),
    ] = None,
    api_secret: Annotated[
        str | None,
        typer.Option(envvar=SECRET_VARIABLE, help="Its secret; `ps` shows it if given here."),
    ] = None,
    inspect: Annotated[
        bool | None,
        typer.Option(help="Serve the inspector's page. Default: where only this machine sees it."),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Serve that page to other machines too.")
    ] = False,
    inspector_token: Annotated[
        str | None,
        typer.Option(envvar=INSPECTOR_VARIABLE, help="What a browser has to show for the page."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Tell of nothing but errors.")
    ] = False,
) -> None:
    """Serve speech-to-text, text-to-speech, chat completions, and a page that shows who called.

    What to export goes to stdout, everything else to stderr. Ctrl-C stops it. In a script:

    eval "$(agent-conn gateway --quiet &)" … kill "$AGENT_CONN_GATEWAY_PID"
    """
    try:
        served = Served(
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
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    try:
        with shown_activity(console, quiet=quiet), suppress(KeyboardInterrupt):
            asyncio.run(serve(served, console))
    except CannotServe as reason:
        console.print(f"agent-conn gateway: {reason}", soft_wrap=True)
        raise Finished(Status.UNAVAILABLE) from None
    raise Finished(Status.OK)
