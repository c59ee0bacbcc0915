"""Reads the body of a plain request, for a bounded time."""

from __future__ import annotations

import asyncio

from aiohttp import web

BODY_SECONDS = 15.0


class BodyMissing(Exception):
    """The body could not be read; the text says why, and `status` is to be answered."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def read_body(request: web.Request) -> bytes:
    """Return the body of a request.

    Raises:
        BodyMissing: it is too large, or did not come in time.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise BodyMissing(408, "the body did not come in time") from None
    except web.HTTPRequestEntityTooLarge:
        raise BodyMissing(413, "the body is too large") from None
