"""When each step of one dial began and ended, by what aiohttp and asyncio ask for in public."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from agent_conn.cli.probe.findings import Step
from agent_conn.cli.probe.tls import TlsWatch

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]


class StepTimes:
    """The beginnings and ends, of the loop's clock.

    DNS is from the resolver; there is none for an address. TCP begins with the first socket
    that the connector asks for, over all addresses tried. It ends, and TLS begins, with the
    first step of the TLS handshake; without TLS the end of aiohttp's dial ends it.
    """

    def __init__(self, clock: Callable[[], float], context: ssl.SSLContext | None) -> None:
        self.began: dict[Step, float] = {}
        self.ended: dict[Step, float] = {}
        self.peers: list[tuple[str, int]] = []
        """The host and port of each address that TCP was tried with."""
        self.tls: TlsWatch | None = None
        self._clock = clock
        if context is not None:
            self.tls = TlsWatch(context, began=self._tls_began, ended=lambda: self._end(Step.TLS))

    def make_socket(self, info: AddressInfo) -> socket.socket:
        """A socket for `info`; the connector asks for one for each address that it tries."""
        family, kind, protocol, _, address = info
        self.began.setdefault(Step.TCP, self._clock())
        self.peers.append((str(address[0]), int(address[1])))
        return socket.socket(family, kind, protocol)

    def resolving(self) -> None:
        """A name is looked up."""
        self.began.setdefault(Step.DNS, self._clock())

    def resolved(self) -> None:
        """A name was looked up, and found."""
        self._end(Step.DNS)

    def connected(self) -> None:
        """The connector has given a connection, TLS included. Idempotent."""
        self._end(Step.TCP)
        self.began.setdefault(Step.UPGRADE, self._clock())

    def answered(self, after: float | None) -> None:
        """Note that the answer to the request came `after` seconds, None for none."""
        if after is not None:
            self.ended[Step.UPGRADE] = self.began[Step.UPGRADE] + after
            self.began[Step.FIRST_MESSAGE] = self.ended[Step.UPGRADE]

    def greeted(self, after: float | None) -> None:
        """Note that the first message came `after` seconds, None for none."""
        if after is not None:
            self.ended[Step.FIRST_MESSAGE] = self.began[Step.FIRST_MESSAGE] + after

    def lengths(self) -> dict[Step, float]:
        """The length of each step that has ended."""
        return {step: self.ended[step] - self.began[step] for step in Step if step in self.ended}

    def under_way(self) -> Step:
        """The step that was begun last."""
        return max(self.began, key=lambda step: self.began[step], default=Step.DNS)

    def _tls_began(self) -> None:
        self._end(Step.TCP)
        self.began[Step.TLS] = self._clock()

    def _end(self, step: Step) -> None:
        # The first end counts: aiohttp's dial ends long after TCP where there is TLS.
        self.ended.setdefault(step, self._clock())


def format_peers(peers: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """`peers` as they stand in a URL."""
    return tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in peers)
