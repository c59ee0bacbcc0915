"""Text that others sent, made safe to show on a terminal."""

from __future__ import annotations

from rich.text import Text

LIMIT = 120


def plain(text: str, limit: int = LIMIT) -> str:
    """Return `text` on one line, cut at `limit` characters, with escapes for what does not print.

    So no control character, ANSI sequence or change of writing direction takes effect.
    """
    shown = "".join(map(_escape, text[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def plain_lines(text: str) -> str:
    """Return `text` likewise, but keep its lines and its length."""
    return "\n".join("".join(map(_escape, line)) for line in text.splitlines())


def as_text(text: str, style: str = "") -> Text:
    """The lines of `text` for rich, without anything that its markup would act on."""
    return Text(plain_lines(text), style=style)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
