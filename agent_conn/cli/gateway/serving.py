"""Starts the gateway, tells a shell and a person of it, and serves until it is stopped."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from agent_conn._options import is_loopback
from agent_conn.cli.gateway.credentials import Credentials
from agent_conn.cli.gateway.options import Engine
from agent_conn.cli.gateway.port_holder import explain
from agent_conn.cli.gateway.trust import authorities_file
from agent_conn.cli.gateway.used import used_lines
from agent_conn.cli.stopping import stopped_by_signals
from agent_conn.gateway import (
    Gateway,
    Inspector,
    LocalSpeech,
    ScriptedEngine,
    SpeechEngine,
    SpeechFailed,
    SpeechUnavailable,
)

HANDSHAKES_KEPT = 1000


class CannotServe(Exception):
    """The gateway could not be started; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What to serve, and where. Without `engine`, speech is used if its extra is installed.

    Raises:
        ValueError: the options do not go together.
    """

    host: str
    port: int
    tls: bool
    ca_file: Path | None
    engine: Engine | None
    transcripts: tuple[str, ...]
    replies: tuple[str, ...]
    credentials: Credentials
    inspector: Inspector | None
    quiet: bool

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            try:
                self.credentials.check_for_other_machines()
            except ValueError as wrong:
                raise ValueError(
                    f"--host {self.host!r} can be reached from other machines: {wrong}"
                ) from None
        if self.transcripts and self.engine is Engine.SPEECH:
            raise ValueError("--transcript needs --engine scripted")
        if self.ca_file is not None and not self.tls:
            raise ValueError("--ca-file needs --tls")


async def serve(settings: ServeSettings, console: Console) -> None:
    """Serve until SIGINT or SIGTERM, on which every connection is closed with 1001.

    Raises:
        CannotServe: it could not be started.
    """

    def tell(line: str) -> None:
        if not settings.quiet:
            console.print(line, soft_wrap=True)

    with stopped_by_signals(lambda: tell("stopping; again to stop at once")):
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(_engine(settings))
            gateway = await stack.enter_async_context(_started(settings, engine))
            ca_file = _ca_file(settings, gateway, stack)
            for line in _greeting(settings, gateway, engine):
                tell(line)
            _print_exports(_exports(settings, gateway, ca_file))
            try:
                await asyncio.Event().wait()
            finally:
                for line in used_lines(gateway.usage):
                    tell(line)


@asynccontextmanager
async def _engine(settings: ServeSettings) -> AsyncIterator[SpeechEngine]:
    if settings.engine is not Engine.SCRIPTED:
        async with LocalSpeech() as speech:
            try:
                await speech.warm_up()
            except (SpeechUnavailable, SpeechFailed) as failure:
                if settings.engine is Engine.SPEECH or isinstance(failure, SpeechFailed):
                    raise CannotServe(f"{failure}; or use --engine scripted") from None
            else:
                yield speech
                return
    yield ScriptedEngine(settings.transcripts) if settings.transcripts else ScriptedEngine()


@asynccontextmanager
async def _started(settings: ServeSettings, engine: SpeechEngine) -> AsyncIterator[Gateway]:
    access = settings.credentials.in_force
    try:
        gateway = Gateway(
            engine,
            chat_replies=settings.replies,
            host=settings.host,
            port=settings.port,
            tls=settings.tls,
            keep_handshakes=HANDSHAKES_KEPT,
            token=access.token,
            api_key=access.api_key,
            api_secret=access.api_secret,
            # A web page that had its name rebound to this machine knows the published pair.
            check_host=settings.credentials.published,
            inspector=settings.inspector
            and replace(settings.inspector, exports=settings.credentials.exports()),
        )
        await gateway.start()
    except ImportError as missing:
        raise CannotServe(str(missing)) from None
    except (OSError, UnicodeError) as failure:
        raise CannotServe(explain(settings.host, settings.port, failure)) from None
    try:
        yield gateway
    finally:
        await gateway.aclose()


def _ca_file(settings: ServeSettings, gateway: Gateway, stack: AsyncExitStack) -> Path | None:
    if gateway.client_ssl is None:
        return None
    try:
        return stack.enter_context(authorities_file(gateway.client_ssl, settings.ca_file))
    except OSError as failure:
        raise CannotServe(f"cannot write the --ca-file: {failure.strerror}") from None


def _greeting(settings: ServeSettings, gateway: Gateway, engine: SpeechEngine) -> Iterator[str]:
    scripted = isinstance(engine, ScriptedEngine)
    kind = Engine.SCRIPTED if scripted else Engine.SPEECH
    yield f"agent-conn gateway on {gateway.base_url}, engine {kind}; Ctrl-C stops it"
    if settings.inspector is not None:
        yield f"inspector: {gateway.inspector_url}"
    if scripted and settings.engine is None:
        yield "for real speech: pip install 'agent-conn[speech]'"
    if settings.credentials.token is not None:
        yield "LiveKit's clients mint tokens themselves: for them use --api-key and --api-secret"
    if is_loopback(settings.host):
        return
    yield "other machines use this machine's address; with --tls, pass that address as --host"
    if not settings.tls:
        yield "without --tls, tokens, audio and text are not encrypted on the network"


def _exports(settings: ServeSettings, gateway: Gateway, ca_file: Path | None) -> str:
    words = {"LIVEKIT_INFERENCE_URL": shlex.quote(gateway.base_url)}
    words |= settings.credentials.exports()
    if ca_file is not None:
        words["SSL_CERT_FILE"] = shlex.quote(str(ca_file))
    if not sys.stdout.isatty():
        words["AGENT_CONN_GATEWAY_PID"] = str(os.getpid())
    return "".join(f"export {name}={word}\n" for name, word in words.items())


def _print_exports(exports: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(exports)
        sys.stdout.flush()
    if not sys.stdout.isatty():
        # Whoever reads this to its end, as a shell's $(…) does, need not wait for ours.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
