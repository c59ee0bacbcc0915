"""A caller's session as one dial sees it: its requests go through a guard.

aiohttp's ``ws_connect`` takes no middleware, while ``request`` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from yarl import URL

from agent_conn._dial.predial import NO_TIMEOUT
from agent_conn._dial.websocket import InferenceWebSocket
from agent_conn._options import Handler

Guard = Callable[[aiohttp.ClientRequest, Handler], Awaitable[aiohttp.ClientResponse]]

with warnings.catch_warnings():
    # aiohttp warns of subclasses of its session, which may lose their attributes to its own.
    warnings.simplefilter("ignore", DeprecationWarning)

    class SessionView(aiohttp.ClientSession):
        """A caller's session, as seen by one dial: its requests go through a guard.

        It is never initialised: what it lacks is looked up in the caller's session.
        """

        _ws_response_class = InferenceWebSocket
        caller: aiohttp.ClientSession
        guard: Guard

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            return getattr(self.caller, name)

        def __del__(self, *_: object) -> None:
            """The caller's session is not this one's to miss the closing of."""

        def request(self, method: str, url: str | URL, **options: Any) -> Any:  # noqa: ANN401
            """Make the caller's request, through the guard and no further than it leads."""
            return self.caller.request(
                method,
                url,
                **{**options, "allow_redirects": False, "timeout": NO_TIMEOUT},
                middlewares=(self.guard,),
            )


def view_of(session: aiohttp.ClientSession, guard: Guard) -> SessionView:
    """``session`` as seen by the dial whose requests go through ``guard``."""
    view = SessionView.__new__(SessionView)
    vars(view).update(caller=session, guard=guard)
    return view
