"""`agent-conn gateway` as a process of its own, and a shell that takes what it printed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from agent_conn.gateway import mint_token

LAST_EXPORT = "AGENT_CONN_GATEWAY_PID"


@dataclass
class Ended:
    """How a process ended."""

    status: int | None
    out: str
    err: str


@dataclass
class Served:
    """A gateway's process, and all that it printed on stdout."""

    process: asyncio.subprocess.Process
    exports: str

    async def environment(self, **variables: str) -> dict[str, str]:
        """What a shell that has `variables` alone exports after it was given the lines."""
        shell = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'eval "$1" && env -0', "sh", self.exports),
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **variables},
        )
        told, _ = await shell.communicate()
        assert shell.returncode == 0
        pairs = (line.partition("=") for line in told.decode().split("\0") if line)
        return {name: value for name, _, value in pairs}

    async def stop(self, number: int = signal.SIGTERM) -> Ended:
        self.process.send_signal(number)
        return await ended(self.process)


async def launch(
    *command: str,
    stdout: int = asyncio.subprocess.PIPE,
    variables: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start a process whose environment has `variables`, and none of the project's own."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LIVEKIT", "AGENT_CONN"))
    }
    return await asyncio.create_subprocess_exec(
        *command,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env=inherited | {"COLUMNS": "200"} | dict(variables or {}),
        start_new_session=True,
    )


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a process to end; it is killed if it does not."""
    try:
        async with asyncio.timeout(40):
            out, err = await process.communicate()
    finally:
        await kill(process)
    # A stream that is no pipe gives None.
    return Ended(process.returncode, (out or b"").decode(), (err or b"").decode())


async def kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.communicate()


async def run(*arguments: str, variables: Mapping[str, str] | None = None) -> Ended:
    """Run `agent-conn` to its end."""
    command = (sys.executable, "-m", "agent_conn", *arguments)
    return await ended(await launch(*command, variables=variables))


@asynccontextmanager
async def gateway_process(
    *arguments: str, prefix: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """A gateway on a free port, started under the command `prefix`."""
    command = (*prefix, sys.executable, "-m", "agent_conn", "gateway", "--port", "0", *arguments)
    process = await launch(*command, variables=variables)
    try:
        assert process.stdout is not None
        exports = ""
        async with asyncio.timeout(40):
            # Not to the end of the stream, which uvloop tells only when the process has ended.
            while line := await process.stdout.readline():
                exports += line.decode()
                if LAST_EXPORT in exports:
                    break
        yield Served(process, exports)
    finally:
        await kill(process)


@asynccontextmanager
async def websocket(
    environment: dict[str, str], path: str = "/echo", **headers: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A websocket of a client that has nothing but `environment`."""
    key, secret = (environment[f"LIVEKIT_INFERENCE_API_{part}"] for part in ("KEY", "SECRET"))
    authorization = {"Authorization": f"Bearer {mint_token(key, secret)}"}
    url = environment["LIVEKIT_INFERENCE_URL"] + path
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers={**authorization, **headers}) as ws,
    ):
        yield ws
