"""Text from outside, made harmless for a terminal."""

from __future__ import annotations

from rich.text import Text


def plain(text: str) -> str:
    r"""`text` with everything that is not printable as an escape, such as ``\x1b``.

    Controls, ANSI sequences and what changes the direction of writing act no more; the ends of
    lines stay.
    """
    return "\n".join("".join(map(_escape, line)) for line in text.splitlines())


def as_text(text: str, style: str = "") -> Text:
    """`text` for rich, without anything that a terminal or rich's markup would act on."""
    return Text(plain(text), style=style)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
