"""What was heard, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heard:
    """A transcript; `repeated` if it is of audio that an earlier connection was sent too."""

    text: str
    final: bool
    repeated: bool = False


def show(heard: Heard) -> None:
    """Print it: in brackets what may change, marked what may have been shown before."""
    text = f"{heard.text} [heard again]" if heard.repeated else heard.text
    print(text if heard.final else f"({text})", flush=True)
