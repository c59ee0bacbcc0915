"""The command line: `agent-conn`, or `python -m agent_conn`. It needs ``agent-conn[cli]``."""

from __future__ import annotations

import sys
from typing import Annotated

import agent_conn
from agent_conn.cli.status import Finished, Status

try:
    import typer
except ImportError:
    sys.exit("agent-conn needs typer and rich: pip install 'agent-conn[cli]'")

from agent_conn.cli.gateway.command import serve_gateway
from agent_conn.cli.probe.command import PROBE_HELP, PROBE_SETTINGS, probe

app: typer.Typer = typer.Typer(
    name="agent-conn",
    # A traceback with locals would show credentials.
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def describe(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Try and see attributed websockets from voice agents to an inference gateway."""
    if version:
        typer.echo(agent_conn.__version__)
        raise Finished(Status.OK)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise Finished(Status.USAGE)


app.command("gateway")(serve_gateway)
app.command("probe", help=PROBE_HELP, context_settings=PROBE_SETTINGS)(probe)


def main() -> None:
    """Run the command line; one that is wrong exits with `Status.USAGE`."""
    try:
        app()
    except SystemExit as leaving:
        # typer's own exit for a wrong command line is 2, which is `Status.UNREACHABLE` here.
        if leaving.code == 2 and not isinstance(leaving, Finished):
            sys.exit(Status.USAGE)
        raise
