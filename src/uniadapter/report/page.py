"""`report.html`: one page that holds everything it shows, needs no network and no script, and reads well on paper."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from uniadapter.report.metrics import DIRECTIONS, Metrics, MetricsLike, Row, read_history, write_atomically
from uniadapter.report.pictures import Thumbnails
from uniadapter.report.plots import PALETTE, History, colour_index, panel_svg, quantities, title_of
from uniadapter.report.queries import QueryExample, query_cards, tally
from uniadapter.report.tables import (
    Column,
    best_rows,
    by_test_set,
    cost_columns,
    direction_label,
    method_label,
    percent_text,
    row_label,
    score_columns,
    size_text,
)
from uniadapter.version import __version__

PAGE = "report.html"


def write_report(
    folder: Path | str,
    metrics: MetricsLike,
    examples: Sequence[QueryExample] = (),
    *,
    history: History | None = None,
    summary: str = "",
    title: str | None = None,
    labels: tuple[str, str] | None = None,
    examples_note: str = "",
) -> Path:
    """Write a run's page.

    Args:
        folder: of the run; its `config.yaml` is shown if it is there, and its `history.jsonl` is read if
            `history` is None.
        metrics: of the run. Top-level values beside task, seed and rows ("base", "device", "versions", …) are shown
            as facts of the run.
        examples: queries with their pictures.
        history: method to logged steps.
        summary: a sentence or two below the title.
        title: of the page; named after method, task and base if None.
        labels: of the two lines of pictures; named after the methods if None.
        examples_note: how the queries were chosen.

    Returns:
        The file, `report.html`.

    Raises:
        ReportError: metrics of another form, or the file cannot be written; an old page is then untouched.
    """
    folder, metrics = Path(folder), Metrics.of(metrics)
    methods = list(dict.fromkeys(row.method for row in metrics.rows))
    trained = _trained_method(metrics.rows)
    if history is None:
        history = read_history(folder / "history.jsonl", trained or "uniadapter")
    labels = labels or ("before · zero-shot", f"after · {method_label(trained)}" if trained else "after")
    title = title or _title(metrics, trained)
    colours = colour_index(list(dict.fromkeys([*history, *methods])))
    body = [
        f'<header class="top"><h1>{escape(title)}</h1>{_paragraph(summary, "lead")}{_figures(metrics, trained)}</header>',
        _results(metrics, colours),
        _curves(history, colours),
        _queries(examples, labels, examples_note),
        _facts(metrics, folder / "config.yaml"),
    ]
    return write_atomically(folder / PAGE, _document(title, "\n".join(part for part in body if part)).encode())


def _document(title: str, body: str) -> str:
    style = files("uniadapter.report").joinpath("page.css").read_text(encoding="utf-8")
    style += f":root {{ {' '.join(f'--c{n}: {c};' for n, c in enumerate(PALETTE))} }}\n"
    style = style.replace("/*palette*/", "")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    del digest
    # The policy makes the browser itself see to it that nothing is fetched and no script runs.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="uniadapter {__version__}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
<footer>Written by uniadapter {__version__} on {datetime.date.today().isoformat()}. This page holds all that it shows.
</footer>
</main>
</body>
</html>
"""
