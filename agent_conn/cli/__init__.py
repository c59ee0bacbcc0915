"""The command line: `agent-conn`, or `python -m agent_conn`. It needs ``agent-conn[cli]``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import agent_conn
from agent_conn.cli.status import Finished, Status

try:
    import typer
    from typer.core import TyperGroup
except ImportError:
    sys.exit("agent-conn needs typer and rich: pip install 'agent-conn[cli]'")

from agent_conn.cli.gateway.command import GATEWAY_HELP, GATEWAY_SETTINGS, serve_gateway
from agent_conn.cli.probe.command import PROBE_HELP, PROBE_SETTINGS, probe


class _Commands(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  (private types)
        # typer's own message repeats what was given, which may be a secret in the wrong place.
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"there is no such command: write one of {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


app: typer.Typer = typer.Typer(
    name="agent-conn",
    cls=_Commands,
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


app.command("gateway", help=GATEWAY_HELP, context_settings=GATEWAY_SETTINGS)(serve_gateway)
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
