"""``Endpoints``: several URLs of one gateway, and what the dials to them have found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from yarl import URL

from agent_conn._dial.endpoint_health import EndpointHealth, is_endpoints_fault
from agent_conn._options import check_url, kind
from agent_conn.errors import ConfigurationError, ConnectionLost, StateError


class Endpoints:
    """Several URLs of one gateway, in the order in which you prefer them.

    Give it as the ``url`` of every connection that is to share what they find. A dial tries the
    current endpoint first, and the next at once where that fails, until each was tried. Where
    TCP and TLS take longer than 250 ms, those of the next begin beside; only one endpoint at a
    time is sent the Upgrade. Five failures in a row eject an endpoint for 30 s, more or less.

    Use it in one event loop.

    Args:
        urls: absolute, ``wss://`` or ``ws://``, each once.

    Raises:
        ConfigurationError: ``urls`` is empty or has what is no such URL.
    """

    def __init__(self, urls: Iterable[str | URL]) -> None:
        problem: ConfigurationError | None = None
        try:
            self.urls: tuple[URL, ...] = _check(urls)
            """All of them, as given: their queries may be secret."""
        except ConfigurationError as error:
            problem = error.with_traceback(None)
        if problem is not None:
            # Some loggers show the locals of a traceback's frames.
            del self, urls
            raise problem
        self.health: EndpointHealth = EndpointHealth(len(self.urls), random.random)
        """What the dials and losses tell of them."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        shown = ", ".join(str(self.shown(place)) for place in range(len(self.urls)))
        return f"<Endpoints {shown}>"

    @property
    def current(self) -> URL:
        """The one that is dialled first, without its query."""
        return self.shown(self.health.current)

    def shown(self, place: int) -> URL:
        """The URL at ``place`` without its query."""
        return _without_query(self.urls[place])

    def lost(self, shown: URL, loss: ConnectionLost) -> None:
        """Take note that a connection to the one that is ``shown`` so was lost."""
        if is_endpoints_fault(loss):
            places = [self.shown(place) for place in range(len(self.urls))]
            self.health.failed(places.index(shown), asyncio.get_running_loop().time())

    def enter(self) -> None:
        """Bind them to the event loop that runs here.

        Raises:
            StateError: it is not the one that they were first used in.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif loop is not self._loop:
            raise StateError("Endpoints must be used in one event loop, got another")


def _check(urls: object) -> tuple[URL, ...]:
    if isinstance(urls, str | URL) or not isinstance(urls, Iterable):
        raise ConfigurationError(f"urls must be a sequence of URLs, got {kind(urls)}")
    checked = tuple(check_url(url, f"urls[{place}]") for place, url in enumerate(urls))
    if not checked:
        raise ConfigurationError("urls must be one URL or more, got none")
    shown = [_without_query(url) for url in checked]
    for place, url in enumerate(shown):
        if url in shown[:place]:
            raise ConfigurationError(
                "urls must differ in more than their queries, by which no record tells them "
                f"apart, got {url} twice"
            )
    return checked


def _without_query(url: URL) -> URL:
    return url.with_query(None).with_fragment(None)
