"""A comparison as a page that stands by itself: tables, the rates that validation chose, scores against costs."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from uniadapter.compare.table import cells_of, lines_of, titles_of
from uniadapter.files.writing import write_text
from uniadapter.report.page import document
from uniadapter.report.tables import method_label

PAGE = "report.html"


def comparison_page(
    folder: Path, results: dict[str, Any], rates: dict[str, Any] | None, reference: str, figures: dict[str, bytes]
) -> Path:
    """Write a comparison's page.

    Args:
        folder: of the comparison.
        results: of `measure_seeds`.
        rates: content of `learning-rates.json`; None leaves them out.
        reference: name of the arm that the others are compared with.
        figures: as PNG, by title.

    Returns:
        The file, `report.html`.
    """
    title = f"{results['task']}: methods compared"
    parts = [
        f'<header class="top"><p class="kicker">uniadapter · a comparison</p><h1>{escape(title)}</h1>'
        f'<p class="lead">Mean and standard deviation over seeds on the test split; differences to '
        f"{escape(method_label(reference))} with 95% intervals of a paired bootstrap over queries and seeds; learning "
        "rates chosen on validation.</p></header>",
        *_tables(results, reference),
        *(_figure(name, content) for name, content in figures.items()),
        _rates(rates) if rates else "",
        f'<p class="note">{escape(_machine(results))}</p>',
    ]
    return write_text(folder / PAGE, document(title, "\n".join(part for part in parts if part)))


def _figure(title: str, content: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = f'<img alt="{escape(title)}" style="max-width: 100%; background: white" src="{source}">'
    return f"<section><h2>{escape(title)}</h2>{image}</section>"


def _machine(results: dict[str, Any]) -> str:
    names = ("device", "threads", "torch")
    return "Measured on " + ", ".join(f"{name} {results[name]}" for name in names if name in results) + "."


def _tables(results: dict[str, Any], reference: str) -> list[str]:
    scores, grouped = lines_of(results)
    titles = titles_of(scores, reference)
    return [
        f"<section><h2>{escape(test_set)}</h2>{_table(titles, [cells_of(line) for line in lines])}</section>"
        for test_set, lines in grouped.items()
    ]


def _rates(rates: dict[str, Any]) -> str:
    found: dict[str, dict[float, float]] = {}
    for row in rates["rows"]:
        found.setdefault(row["arm"], {})[row["lr"]] = row["main"]
    every = sorted({rate for mine in found.values() for rate in mine})
    rows = []
    for arm, mine in found.items():
        chosen = rates["chosen"][arm]["lr"]
        cells = [f"{mine[rate]:.1f}{' ←' if rate == chosen else ''}" if rate in mine else "" for rate in every]
        rows.append([arm, *cells])
    table = _table(["validation, seed 0", *(f"{rate:g}" for rate in every)], rows)
    return f'<section><h2>Learning rates</h2>{table}<p class="note">← chosen</p></section>'


def _table(titles: list[str], rows: list[list[str]]) -> str:
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    lines = []
    for name, *cells in rows:
        named = zip(titles[1:], cells, strict=True)
        rest = "".join(f'<td data-label="{escape(title)}">{escape(cell)}</td>' for title, cell in named)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{rest}</tr>')
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
