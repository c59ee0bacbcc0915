"""Credentials that must not appear in anything, and where to look for them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

TESTS = str(Path(__file__).parents[1])
TOKEN = "canary-token-4711"
WORKER_TOKEN = "canary-worker-4712"
COOKIE = "canary-cookie-4713"
QUERY = "canary-query-4714"
ECHO = f'{{"you sent": "{TOKEN} {WORKER_TOKEN} session={COOKIE} key={QUERY}"}}'.encode()


def told_by(error: BaseException) -> Iterator[str]:
    """Everything that a logger could make of ``error`` and what it is chained to."""
    for link in _chain(error):
        yield str(link)
        yield repr(link)
        yield repr(link.args)
        yield repr(vars(link))
        for frame in traceback.TracebackException.from_exception(link, capture_locals=True).stack:
            caller_is_us = frame.filename.startswith(TESTS)
            yield f"{frame.name}: {'' if caller_is_us else frame.locals}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def assert_clean(texts: Iterator[str] | list[str]) -> None:
    for text in texts:
        for canary in (TOKEN, WORKER_TOKEN, COOKIE, QUERY):
            assert canary not in text
