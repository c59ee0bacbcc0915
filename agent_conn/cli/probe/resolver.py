"""Resolve names in a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult


class UnhurriedResolver(AbstractResolver):
    """Asks the system's resolver as aiohttp's own does, each time anew.

    A lookup can hang for half a minute in the C library, where nothing can stop it. aiohttp's
    runs in the loop's executor, whose threads Python waits for when it ends; this one's is a
    daemon, so that Ctrl-C and a timeout end the command at once. `began` and `ended` are called
    around a lookup that finds something.
    """

    def __init__(self, *, began: Callable[[], None], ended: Callable[[], None]) -> None:
        self._began = began
        self._ended = ended

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`.

        Raises:
            OSError: there are none, or the resolver fails (`socket.gaierror`).
        """
        self._began()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def look_up() -> None:
            try:
                found = socket.getaddrinfo(
                    host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
            except OSError as error:
                _tell(loop, answer, error)
            else:
                _tell(loop, answer, found)

        threading.Thread(target=look_up, name="agent-conn-resolver", daemon=True).start()
        found = await answer
        self._ended()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _tell(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[Any]], found: list[Any] | OSError
) -> None:
    def settle() -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop was closed: nobody waits for the answer any more.
        return
