"""Text that others sent, made safe to show on a terminal."""

from __future__ import annotations

from rich.text import Text

LIMIT = 120


def plain(text: str, limit: int = LIMIT) -> str:
    """`text` on one line, what does not print written as an escape, cut at `limit` characters.

    Controls, ANSI sequences and what changes the direction of writing act no more.
    """
    shown = "".join(map(_escape, text[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def plain_lines(text: str) -> str:
    """`text` likewise, with its lines kept and nothing cut."""
    return "\n".join("".join(map(_escape, line)) for line in text.splitlines())


def as_text(text: str, style: str = "") -> Text:
    """The lines of `text` for rich, without anything that its markup would act on."""
    return Text(plain_lines(text), style=style)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
