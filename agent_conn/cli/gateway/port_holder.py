"""Why a port cannot be listened on, and who has it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent_conn.cli.plain import plain

LISTENING = "0A"
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens on a port."""

    pid: int
    name: str
    is_gateway: bool
    """Whether it is `agent-conn gateway`."""


def explain(host: str, port: int, failure: OSError | UnicodeError) -> str:
    """Return in one sentence why `host` and `port` could not be listened on."""
    if isinstance(failure, UnicodeError):
        return f"--host must be a host name or an address, got {plain(host)}"
    if isinstance(failure, socket.gaierror):
        return f"--host must be an address of this machine, got {plain(host)}: {failure.strerror}"
    if failure.errno == errno.EADDRNOTAVAIL:
        return f"--host must be an address of this machine, got {plain(host)}"
    if failure.errno == errno.EACCES:
        return f"port {port} needs more rights than this process has; choose one above 1023"
    if failure.errno != errno.EADDRINUSE:
        return f"cannot listen on {plain(host)}, port {port}: {failure.strerror}"
    return f"port {port} is taken by {_named(holders(port))}; --port 0 takes a free one"


def holders(port: int) -> list[Holder]:
    """Return the processes that listen on `port`, as far as they can be seen.

    On Linux those of this user, or with the right to look all; elsewhere none.
    """
    links = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    return list(_processes_with(links)) if links else []


def _named(found: list[Holder]) -> str:
    if not found:
        return "a process that cannot be seen from here"
    return ", ".join(
        f"another agent-conn gateway (pid {holder.pid})"
        if holder.is_gateway
        else f"{holder.name} (pid {holder.pid})"
        for holder in found
    )


def _listening_inodes(port: int) -> Iterator[str]:
    # proc(5), /proc/net/tcp: the local address is the second field, the state the fourth,
    # the inode the tenth.
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _processes_with(links: set[str]) -> Iterator[Holder]:
    for folder in PROC.glob("[0-9]*"):
        try:
            if not any(str(fd.readlink()) in links for fd in (folder / "fd").iterdir()):
                continue
            name = (folder / "comm").read_text(errors="replace").strip()
            command = (folder / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            # Another user's, or it ended meanwhile.
            continue
        yield Holder(int(folder.name), plain(name), _is_gateway(command))


def _is_gateway(command: list[str]) -> bool:
    programs = {Path(argument).name for argument in command}
    return "gateway" in command and not programs.isdisjoint({"agent-conn", "agent_conn"})
