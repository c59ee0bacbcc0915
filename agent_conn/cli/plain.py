"""Text that others sent, made safe to show on a terminal."""

from __future__ import annotations

LIMIT = 120


def plain(text: str, limit: int = LIMIT) -> str:
    """Return `text` with what does not print written as an escape, cut at `limit` characters."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
