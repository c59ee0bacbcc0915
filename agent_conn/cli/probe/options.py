"""The options of `agent-conn probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UrlArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="URL",
        help="wss://…/v1/stt, or a base URL: …/v1 means its /stt. Without one, and without "
        "LIVEKIT_INFERENCE_URL, a gateway is started on this machine and probed.",
        show_default=False,
    ),
]
KeyOption = Annotated[str | None, typer.Option(metavar="KEY", help="API key to mint tokens with.")]
SecretOption = Annotated[str | None, typer.Option(metavar="SECRET", help="The key's secret.")]
TokenOption = Annotated[str | None, typer.Option(metavar="TOKEN", help="A token to send as it is.")]
CountOption = Annotated[
    int, typer.Option(min=1, metavar="NUMBER", help="How many connections, one after another.")
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        min=0.1, metavar="SECONDS", help="Time for each connection, up to its first message."
    ),
]
RoomOption = Annotated[str | None, typer.Option(metavar="ID", help="Room id to send.")]
AgentOption = Annotated[str | None, typer.Option(metavar="ID", help="Agent id to send.")]
JobOption = Annotated[str | None, typer.Option(metavar="ID", help="Job id to send.")]
CaOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="PEM file of the authorities to trust, and no others."),
]
InsecureOption = Annotated[
    bool,
    typer.Option("--insecure", help="Do not check certificates, and allow a token over ws://."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, with times in seconds.")
]
