"""Which names a request may address the gateway by.

A web page can have its own name resolve to this machine (DNS rebinding), and its requests then
count as the page's own. Their Host header tells them apart.
"""

from __future__ import annotations

import ipaddress

from agent_conn._options import is_loopback


class HostNames:
    """The names of a gateway that listens on `host`."""

    def __init__(self, host: str) -> None:
        self._host = host

    def include(self, header: str) -> bool:
        """Whether a Host header names this gateway: by its name, by a loopback name or address.

        A gateway that is not on loopback is also reached by addresses that are not known here.
        An address cannot be rebound.
        """
        name = _host_name(header)
        if is_loopback(name) or name == self._host.lower():
            return True
        return not is_loopback(self._host) and _is_address(name)


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
