"""A LiveKit server on this machine, from a binary that is there already."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
from pathlib import Path
from typing import Self

import aiohttp
from livekit import api

VERSION = "v1.9.11"
ATTEMPTS = 5
INSTALL = (
    f"GOBIN=~/.cache/agent-conn/livekit-server-{VERSION} "
    f"go install github.com/livekit/livekit-server/cmd/server@{VERSION}"
)


def find_server() -> str | None:
    """The binary: that of AGENT_CONN_LIVEKIT_SERVER, the cache's, or the PATH's."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cached = Path(cache) / "agent-conn" / f"livekit-server-{VERSION}" / "server"
    named = os.environ.get("AGENT_CONN_LIVEKIT_SERVER") or str(cached)
    return named if Path(named).exists() else shutil.which("livekit-server")


class LiveKitServer:
    """One server, or one node of several that `redis` joins, with a key of its own.

    Args:
        host: the address it serves on.
        redis: address of the Redis that joins nodes, such as "127.0.0.1:6379".
        credentials: the key and the secret; nodes of one cluster share them.
        prefix: what the command is run by, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        redis: str | None = None,
        credentials: tuple[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.key, self.secret = credentials or ("local", secrets.token_hex(32))
        self.host = host
        self._redis = redis
        self._served = False
        self._prefix = prefix
        self._choose_ports()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where workers and callers connect."""
        return f"ws://{self.host}:{self.port}"

    async def start(self) -> None:
        """Run it; return once it serves."""
        for _ in range(ATTEMPTS):
            if await self._run():
                self._served = True
                return
            # Somebody else was quicker to use a port that was free.
            if not self._served:
                self._choose_ports()
        raise RuntimeError(f"livekit-server does not start on port {self.port}")

    async def stop(self) -> None:
        """End it. It is killed: told to terminate, it would wait for its rooms."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
        if process is not None:
            await process.wait()

    def pause(self) -> None:
        """Freeze it until `resume()`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def token(self, identity: str, room: str) -> str:
        """What lets a caller into a room."""
        token = api.AccessToken(self.key, self.secret).with_identity(identity)
        return token.with_grants(api.VideoGrants(room_join=True, room=room)).to_jwt()

    def environment(self) -> dict[str, str]:
        """What a worker of it finds in its environment."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": self.key,
            "LIVEKIT_API_SECRET": self.secret,
        }

    def _choose_ports(self) -> None:
        self.port = free_port(socket.SOCK_STREAM)
        self._tcp = free_port(socket.SOCK_STREAM)
        self._udp = free_port(socket.SOCK_DGRAM)

    async def _run(self) -> bool:
        binary = find_server()
        if binary is None:
            raise RuntimeError(f"there is no livekit-server: {INSTALL}")
        self._process = process = await asyncio.create_subprocess_exec(
            *self._prefix,
            *_ending_with_this_process(),
            binary,
            "--config-body",
            self._config(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with aiohttp.ClientSession() as session:
            while process.returncode is None:
                if await self._serves(session):
                    return True
                await asyncio.sleep(0.05)
        return False

    async def _serves(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://{self.host}:{self.port}/") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def _config(self) -> str:
        lines = [
            f"port: {self.port}",
            f"bind_addresses: [{self.host}]",
            f"rtc: {{tcp_port: {self._tcp}, udp_port: {self._udp}, node_ip: {self.host}}}",
            f"keys: {{{self.key}: {self.secret}}}",
            "logging: {level: error}",
        ]
        if self._redis is not None:
            lines.append(f"redis: {{address: {self._redis}}}")
        return "\n".join(lines)


def _ending_with_this_process() -> tuple[str, ...]:
    """A command to run another by, which then does not outlive this process if it is killed."""
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL")


def free_port(kind: socket.SocketKind) -> int:
    """A port that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
