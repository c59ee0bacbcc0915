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

import typer
from rich.console import Console

from agent_conn.cli.probe.as_json import as_json
from agent_conn.cli.probe.findings import Findings
from agent_conn.cli.probe.options import (
    AgentOption,
    CaOption,
    CountOption,
    InsecureOption,
    JobOption,
    JsonOption,
    KeyOption,
    RoomOption,
    SecretOption,
    TimeoutOption,
    TokenOption,
    UrlArgument,
)
from agent_conn.cli.probe.page import print_page
from agent_conn.cli.probe.plan import Options, Plan, make_plan
from agent_conn.cli.probe.run import probe_all, start_gateway
from agent_conn.cli.probe.status_line import StatusLine
from agent_conn.cli.probe.target import shown
from agent_conn.cli.status import Finished
from agent_conn.errors import ConfigurationError

PROBE_HELP = """Open connections to a gateway: what each step takes, and what to do.

/stt and /tts are asked for a session, without audio; on another path a
first message is listened for. It dials directly, through no proxy.
Without a URL it takes LIVEKIT_INFERENCE_URL, and says so.

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
    url: UrlArgument = None,
    *,
    api_key: KeyOption = None,
    api_secret: SecretOption = None,
    token: TokenOption = None,
    count: CountOption = 1,
    timeout: TimeoutOption = 10.0,
    room: RoomOption = None,
    agent: AgentOption = None,
    job: JobOption = None,
    ca: CaOption = None,
    insecure: InsecureOption = False,
    json_output: JsonOption = False,
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
        raise typer.BadParameter("write one URL; put ids and credentials behind their options")
    try:
        plan = make_plan(options, os.environ)
    except (ConfigurationError, ImportError) as error:
        raise typer.BadParameter(str(error)) from None
    findings = Findings(plan.target, requested=count)
    with StatusLine(Console(stderr=True), count) as progress:
        try:
            asyncio.run(_probe(plan, findings, progress))
        except KeyboardInterrupt:
            findings.interrupted = True
    _show(findings, as_object=json_output)
    raise Finished(findings.status())


async def _probe(plan: Plan, findings: Findings, progress: StatusLine) -> None:
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
