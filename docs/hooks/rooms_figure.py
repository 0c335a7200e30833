"""The figure of the rooms as an SVG: Mermaid, which draws it in the repository, is a script from elsewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOMS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "rooms.py"))
MERMAID = re.compile(r"^```mermaid\n.*?^```$", re.MULTILINE | re.DOTALL)
WIDTH, ROW, HEIGHT, LETTER, PAD = 860, 62, 28, 7.6, 20  # pixels


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw the figure where the page has it as Mermaid."""
    return MERMAID.sub(lambda _: figure(), markdown) if page.file.src_uri == "architecture.md" else markdown


def figure() -> str:
    """The rooms in rows, the highest floor on top, with the arrows that no chain of others implies."""
    graph = ROOMS["arrows"]()
    floor, below = ROOMS["floors"](graph), ROOMS["shortest"](graph)
    top = max(floor.values())
    middle: dict[str, float] = {}
    for level in range(top, 0, -1):
        above = {room: [middle[one] for one in middle if room in below[one]] for room in graph if floor[room] == level}
        row = sorted(above, key=lambda room: (_mean(above[room]), room))
        free = WIDTH - sum(_width(room) for room in row)
        left = gap = free / (len(row) + 1)
        for room in row:
            middle[room] = left + _width(room) / 2
            left += _width(room) + gap
    y = {room: (top - floor[room]) * ROW + 4 for room in graph}
    lines = [
        f'<path d="M{middle[room]:.0f} {y[room] + HEIGHT} C{middle[room]:.0f} {y[room] + ROW:.0f} '
        f'{middle[one]:.0f} {y[one] - ROW + HEIGHT:.0f} {middle[one]:.0f} {y[one]}"/>'
        for room in sorted(graph) for one in sorted(below[room])
    ]  # fmt: skip
    boxes = [
        f'<rect x="{middle[room] - _width(room) / 2:.0f}" y="{y[room]}" width="{_width(room):.0f}" height="{HEIGHT}" '
        f'rx="4"/><text x="{middle[room]:.0f}" y="{y[room] + 19}">{room}</text>'
        for room in sorted(graph)
    ]
    size = f'viewBox="0 0 {WIDTH} {top * ROW - ROW + HEIGHT + 8}"'
    said = "The rooms in rows, and the arrows from each to those below that it imports"
    drawn = f'<svg class="rooms" {size} role="img" aria-label="{said}">{"".join(lines + boxes)}</svg>'
    return f'<div class="rooms-frame">{drawn}</div>'


def _width(room: str) -> float:
    return len(room) * LETTER + PAD


def _mean(places: list[float]) -> float:
    return sum(places) / len(places) if places else WIDTH / 2
