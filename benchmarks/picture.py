"""The documentation's picture of one round trip against three, for a light and a dark page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import Result

NAME = "predial"
LINE = "80 ms"
SHOWN = ("agent_conn", "aiohttp")
COLOURS = {
    "light": {"ink": "#1f2328", "soft": "#59636e", "agent_conn": "#0969da", "aiohttp": "#6e7781"},
    "dark": {"ink": "#f0f6fc", "soft": "#9198a1", "agent_conn": "#4493f8", "aiohttp": "#656c76"},
}
WIDTH, LABEL, BAR, TOP, ROW = 720, 120, 460, 56, 44
FONT = "font-family='system-ui, sans-serif'"


def draw(result: Result, colours: dict[str, str]) -> str:
    """An SVG of how long each takes from the room to an open websocket, in round trips.

    Raises:
        ValueError: that line was not measured.
    """
    column = next(n for n, each in enumerate(result.columns) if LINE in each.title)
    figures = {name: result.rows[name][column] for name in (*SHOWN, "TCP connect")}
    measured = {name: cell for name, cell in figures.items() if isinstance(cell, int | float)}
    if len(measured) < len(figures):
        raise ValueError(f"{NAME} was not measured at {LINE}")
    trip, longest = measured.pop("TCP connect"), max(measured[name] for name in SHOWN)
    parts = [_text(0, 20, "From the room connecting to the websocket open", colours["ink"], 16)]
    parts.append(_text(0, 40, f"over TLS, on a line of {LINE}", colours["soft"], 13))
    for number, name in enumerate(SHOWN):
        top, width = TOP + number * ROW, measured[name] / longest * BAR
        trips = max(1, round(measured[name] / trip))
        told = f"{measured[name]:.0f} ms, {trips} round trip{'s' if trips > 1 else ''}"
        parts.append(_text(0, top + 20, name, colours["ink"], 14))
        parts.append(
            f"<rect x='{LABEL}' y='{top + 4}' width='{width:.1f}' height='22' rx='3' "
            f"fill='{colours[name]}'/>"
        )
        inside = width > BAR / 2
        ink = "#ffffff" if inside else colours["ink"]
        parts.append(_text(LABEL + (10 if inside else width + 10), top + 20, told, ink, 13))
    height = TOP + len(SHOWN) * ROW
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img'>"
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def pictures(results: list[Result]) -> dict[str, str]:
    """The text of each file, by name; none where that was not measured."""
    found = [result for result in results if result.name == NAME]
    return {
        f"room-to-open-{theme}.svg": draw(found[0], colours)
        for theme, colours in COLOURS.items()
        if found
    }


def put_pictures_into(folder: Path, results: list[Result]) -> None:
    """Write the pictures of ``results`` to ``folder``."""
    folder.mkdir(exist_ok=True)
    for name, text in pictures(results).items():
        (folder / name).write_text(text, encoding="utf-8")


def _text(x: float, y: float, text: str, colour: str, size: int) -> str:
    return f"<text x='{x:.0f}' y='{y:.0f}' fill='{colour}' font-size='{size}' {FONT}>{text}</text>"
