"""What was sent as a secret, and whether a text repeats any of it."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote_plus

SHARED = 8
"""Characters in a row that a text may not share with a secret."""

_ROUNDS = 2
"""How many encodings are taken off, one inside the other."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{11,}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){8,}")
_ESCAPE = re.compile(r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])')


class Secrets:
    """The secrets of one dial, asked about what the peer said.

    Args:
        source: gives them; called when the first text is asked about, since most dials end
            without a word from the peer.
    """

    def __init__(self, source: Callable[[], Iterable[str]] = tuple) -> None:
        self._source = source
        self._pieces: frozenset[str] | None = None

    def repeated_in(self, text: str) -> bool:
        """Whether ``text`` shares 8 characters in a row with a secret.

        It is read as it stands, and with JSON, percent, HTML, base64 and hexadecimal encodings
        taken off; the case of letters does not count.
        """
        if len(text) < SHARED:
            return False
        if self._pieces is None:
            self._pieces = frozenset(_pieces_of(self._source()))
        return any(not self._pieces.isdisjoint(_windows(view)) for view in _views(text))

    def shown(self, text: str) -> str:
        """``text``, or nothing where it repeats a secret."""
        return "" if self.repeated_in(text) else text


def _pieces_of(secrets: Iterable[str]) -> Iterator[str]:
    for secret in secrets:
        for view in {secret, unquote_plus(secret)}:
            yield from _windows(view)


def _windows(text: str) -> Iterator[str]:
    folded = text.casefold()
    return (folded[at : at + SHARED] for at in range(len(folded) - SHARED + 1))


def _views(text: str) -> set[str]:
    views = {text}
    for _ in range(_ROUNDS):
        views |= {plain for view in views for plain in _decoded(view)}
    return views


def _decoded(text: str) -> Iterator[str]:
    yield _ESCAPE.sub(lambda found: str(json.loads(f'"{found[0]}"')), text)
    yield unquote_plus(text)
    yield html.unescape(text)
    for run in _HEX.findall(text):
        yield bytes.fromhex(run).decode("latin-1")
    for run in _BASE64.findall(text):
        digits = run.replace("-", "+").replace("_", "/")
        # A piece that was cut out of the middle may begin within a group of four.
        for start in range(4):
            whole = digits[start : start + (len(digits) - start) // 4 * 4]
            try:
                yield base64.b64decode(whole).decode("latin-1")
            except binascii.Error:
                continue
