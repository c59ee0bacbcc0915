"""The options of `agent-conn gateway`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agent_conn.cli.gateway.credentials import (
    INSPECTOR_VARIABLE,
    KEY_VARIABLE,
    SECRET_VARIABLE,
    TOKEN_VARIABLE,
)

DEFAULT_PORT = 7878


class Engine(StrEnum):
    """What hears and speaks."""

    SPEECH = "speech"
    SCRIPTED = "scripted"


HostOption = Annotated[
    str, typer.Option(help="Where to listen; beyond this machine it needs credentials.")
]
PortOption = Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")]
TlsOption = Annotated[
    bool, typer.Option("--tls", help="Serve TLS, with an authority made for this run.")
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="Write what clients must trust here, and leave it."),
]
EngineOption = Annotated[
    Engine | None,
    typer.Option(help="Default: speech where its extra is installed, else scripted."),
]
TranscriptOption = Annotated[
    list[str] | None, typer.Option(help="What the scripted engine hears; again for the next.")
]
ReplyOption = Annotated[
    list[str] | None,
    typer.Option(help="What a chat is answered; again for the next. Default: what was said."),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar=TOKEN_VARIABLE,
        show_envvar=False,
        help="Open to this very token; LiveKit's clients send none such.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        envvar=KEY_VARIABLE, show_envvar=False, help="Open to inference tokens of this key."
    ),
]
SecretOption = Annotated[
    str | None,
    typer.Option(
        envvar=SECRET_VARIABLE, show_envvar=False, help="Its secret; `ps` shows it if given here."
    ),
]
InspectOption = Annotated[
    bool | None,
    typer.Option(help="Serve the inspector's page. Default: where only this machine sees it."),
]
AllowRemoteOption = Annotated[
    bool, typer.Option("--allow-remote", help="Serve that page to other machines too.")
]
InspectorTokenOption = Annotated[
    str | None,
    typer.Option(
        envvar=INSPECTOR_VARIABLE,
        show_envvar=False,
        help="What a browser has to show for the page.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Tell of refusals, losses and errors alone.")
]
