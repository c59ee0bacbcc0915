"""`agent-conn probe`: where the time goes as a connection opens, and why one does not open."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agent_conn.cli.probe.as_json import as_json
from agent_conn.cli.probe.findings import Findings
from agent_conn.cli.probe.page import print_page
from agent_conn.cli.probe.plan import Options, Plan, make_plan
from agent_conn.cli.probe.run import probe_all, start_gateway
from agent_conn.cli.probe.status_line import ProgressReport
from agent_conn.cli.probe.target import shown
from agent_conn.cli.status import Finished
from agent_conn.errors import ConfigurationError

PROBE_HELP = """Open connections to a gateway: what each step takes, and what to do.

/stt and /tts are asked for a session, without audio; on another path a
first message is listened for. It dials directly, through no proxy.

Command lines show in ps, so credentials are better set in the environment:
LIVEKIT_INFERENCE_TOKEN, or LIVEKIT_INFERENCE_API_KEY and _API_SECRET,
else LIVEKIT_API_KEY and LIVEKIT_API_SECRET. Options win.

Exit status: 0 all opened, 1 one was rejected, 2 one was not reached,
64 wrong usage, 130 ended by Ctrl-C.
"""

# click's own text for a second argument quotes it, and it may be a token.
PROBE_SETTINGS = {"allow_extra_args": True}


def probe(
    context: typer.Context,
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
    """Probe, show what was found, and end with its status."""
    options = Options(
        url=url,
        api_key=api_key,
        api_secret=api_secret,
        token=token,
        room=room,
        agent=agent,
        job=job,
        timeout=timeout,
        ca=ca,
        insecure=insecure,
    )
    if context.args:
        raise typer.BadParameter("there is more than a URL")
    try:
        plan = make_plan(options, os.environ)
    except (ConfigurationError, ImportError) as error:
        raise typer.BadParameter(str(error)) from None
    findings = Findings(plan.target, requested=count)
    with ProgressReport(Console(stderr=True), count) as progress:
        try:
            asyncio.run(_probe(plan, findings, progress))
        except KeyboardInterrupt:
            findings.interrupted = True
    _show(findings, as_object=json_output)
    raise Finished(findings.status())


async def _probe(plan: Plan, findings: Findings, progress: ProgressReport) -> None:
    async with AsyncExitStack() as stack:
        dial = plan.dial
        if dial is None:
            dial = await start_gateway(stack, plan.make_dial)
            findings.target = replace(findings.target, shown_url=shown(dial.url))
        await probe_all(dial, findings, progress.done)


def _show(findings: Findings, *, as_object: bool) -> None:
    now = datetime.now(UTC)
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the terminal's encoding lacks is no reason to show nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_object:
        typer.echo(json.dumps(as_json(findings, now)))
    else:
        print_page(Console(highlight=False, markup=False, emoji=False), findings, now)
