"""Whether the peer of a local TCP connection still has it open, asked without reading it.

A socket that is not read learns nothing of a close behind unread data. On Linux, the peer's
end of a loopback connection is listed by the kernel; there its state can be looked up.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path

ESTABLISHED = "01"


def peer_has_closed(sock: socket.socket) -> bool:
    """Whether the other end is known to have closed the connection.

    False where it cannot be known: another host, or another system than Linux. Blocks for as
    long as the kernel takes to list its connections.
    """
    if sock.fileno() == -1:
        return True
    try:
        ours, theirs = sock.getsockname(), sock.getpeername()
    except OSError:
        return True
    host = theirs[0].partition("%")[0]
    mapped = sock.family == socket.AF_INET6 and "." in host
    if mapped or not ipaddress.ip_address(host).is_loopback:
        return False
    table = Path("/proc/net/tcp6" if sock.family == socket.AF_INET6 else "/proc/net/tcp")
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return False
    wanted = [_kernel_address(sock.family, theirs), _kernel_address(sock.family, ours)]
    for line in lines:
        fields = line.split(maxsplit=4)
        if fields[1:3] == wanted:
            return fields[3] != ESTABLISHED
    return True


def _kernel_address(family: int, address: tuple[str, int]) -> str:
    packed = socket.inet_pton(family, address[0].partition("%")[0])
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    order = -1 if sys.byteorder == "little" else 1
    host = "".join(word[::order].hex().upper() for word in words)
    return f"{host}:{address[1]:04X}"
