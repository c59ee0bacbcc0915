"""Network namespaces, each joined to this one by a pair of devices. They need root."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from typing import Self

import pytest

needs_namespaces = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need Linux, root and iproute2",
)


class Namespace:
    """One namespace; ``here`` is this side's address, which is all that it reaches."""

    def __init__(self, number: int) -> None:
        self.name = f"agc{os.getpid()}n{number}"
        self._device = f"agc{os.getpid() % 100_000}v{number}"
        # Of the block for benchmarks (RFC 2544), as nobody's own network.
        network = f"198.19.{os.getpid() % 250}.{4 * number}"
        stem = network.rpartition(".")[0]
        self.here = f"{stem}.{4 * number + 1}"
        self._there = f"{stem}.{4 * number + 2}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is run by, to run within."""
        return ("ip", "netns", "exec", self.name)

    async def __aenter__(self) -> Self:
        try:
            await self._make()
        except BaseException:
            await self._remove()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._remove()

    async def _make(self) -> None:
        await _ip("netns", "add", self.name)
        there = f"{self._device}p"
        await _ip("link", "add", self._device, "type", "veth", "peer", there, "netns", self.name)
        await _ip("addr", "add", f"{self.here}/30", "dev", self._device)
        await _ip("link", "set", self._device, "up")
        await _ip("-n", self.name, "addr", "add", f"{self._there}/30", "dev", there)
        await _ip("-n", self.name, "link", "set", there, "up")
        await _ip("-n", self.name, "link", "set", "lo", "up")
        await _ip("-n", self.name, "route", "add", "default", "via", self.here)

    async def _remove(self) -> None:
        # The devices go with it.
        await _ip("netns", "del", self.name, check=False)


async def _ip(*arguments: str, check: bool = True) -> None:
    process = await asyncio.create_subprocess_exec("ip", *arguments, stderr=asyncio.subprocess.PIPE)
    _, complaint = await process.communicate()
    if check and process.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {complaint.decode()}")
