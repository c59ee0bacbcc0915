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
# Each panel of the help has columns of its own width.
LISTENING = "Listening"
SPEECH = "Speech and chat"
CREDENTIALS = "Credentials"
INSPECTOR = "Inspector"


class Engine(StrEnum):
    """What hears and speaks."""

    SPEECH = "speech"
    SCRIPTED = "scripted"


HostOption = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        rich_help_panel=LISTENING,
        help="Address to listen on. Other than loopback needs credentials.",
    ),
]
PortOption = Annotated[
    int,
    typer.Option(
        metavar="PORT",
        min=0,
        max=65_535,
        rich_help_panel=LISTENING,
        help="Port; 0 takes a free one.",
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option(
        "--tls", rich_help_panel=LISTENING, help="Serve TLS with a certificate made for this run."
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        rich_help_panel=LISTENING,
        help="Write the certificate authority here, and keep it.",
    ),
]
EngineOption = Annotated[
    Engine | None,
    typer.Option(
        metavar="ENGINE",
        rich_help_panel=SPEECH,
        help="speech or scripted. Default: speech if its extra is installed.",
    ),
]
TranscriptOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=SPEECH,
        help="What the scripted engine hears. Repeat for more utterances.",
    ),
]
ReplyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=SPEECH,
        help="Answer of a chat. Repeat for more answers. Default: what the user said.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar=TOKEN_VARIABLE,
        show_envvar=False,
        metavar="TOKEN",
        rich_help_panel=CREDENTIALS,
        help="Accept this token alone. LiveKit's clients mint their own: give them a key.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        envvar=KEY_VARIABLE,
        show_envvar=False,
        metavar="KEY",
        rich_help_panel=CREDENTIALS,
        help="Accept inference tokens of this key.",
    ),
]
SecretOption = Annotated[
    str | None,
    typer.Option(
        envvar=SECRET_VARIABLE,
        show_envvar=False,
        metavar="SECRET",
        rich_help_panel=CREDENTIALS,
        help="The key's secret. `ps` shows it if you give it here.",
    ),
]
InspectOption = Annotated[
    bool | None,
    typer.Option(
        rich_help_panel=INSPECTOR, help="Serve the inspector. Default: on loopback alone."
    ),
]
AllowRemoteOption = Annotated[
    bool,
    typer.Option(
        "--allow-remote",
        rich_help_panel=INSPECTOR,
        help="Serve the inspector to other machines too.",
    ),
]
InspectorTokenOption = Annotated[
    str | None,
    typer.Option(
        envvar=INSPECTOR_VARIABLE,
        show_envvar=False,
        metavar="TOKEN",
        rich_help_panel=INSPECTOR,
        help="Token that a browser must show to open the inspector.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show only refusals, losses and errors.")
]
