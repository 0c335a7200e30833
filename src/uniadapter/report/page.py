"""`report.html`: a self-contained page without scripts or network access, suitable for printing."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from uniadapter.files.writing import write_text
from uniadapter.report.metrics import Metrics, MetricsLike, read_history
from uniadapter.report.plots import History, colour_index
from uniadapter.report.query_cards import QueryExample, query_cards, rank_changes
from uniadapter.report.sections import curves_section, facts_section, key_figures, results_section
from uniadapter.report.tables import method_label
from uniadapter.report.text_cards import TextExample, text_cards
from uniadapter.report.thumbnails import Thumbnails
from uniadapter.report.usage import usage_section
from uniadapter.version import __version__

PAGE = "report.html"


def write_report(
    folder: Path | str,
    metrics: MetricsLike,
    examples: Sequence[QueryExample | TextExample] = (),
    *,
    history: History | None = None,
    summary: str = "",
    title: str | None = None,
    labels: tuple[str, str] | None = None,
    examples_note: str = "",
    looks_note: str = "",
    thumbnails: Thumbnails | None = None,
) -> Path:
    """Write a run's page.

    Args:
        folder: of the run; its `config.yaml` is shown if it exists, and its `history.jsonl` is read if `history` is
            None.
        metrics: of the run. Further top-level values ("base", "device", "versions", …) are listed as facts.
        examples: queries with their results, or questions and captions with the model's texts.
        history: method to logged steps.
        summary: one or two sentences below the title.
        title: of the page; made from task and method if None.
        labels: of the results before and after training; made from the methods if None.
        examples_note: how the examples were selected; made from their `reason` if "".
        looks_note: how the examples' pictures of attention were made.
        thumbnails: keeps the pictures for the next page with the same examples.

    Returns:
        The file, `report.html`.

    Raises:
        ReportError: `metrics` is invalid.
        WriteError: the file cannot be written; an old page is unchanged.
    """
    folder, metrics = Path(folder), Metrics.of(metrics)
    methods = list(dict.fromkeys(row.method for row in metrics.rows))
    trained = _trained(methods)
    if history is None:
        history = read_history(folder / "history.jsonl", trained or "uniadapter")
    trained = trained or _trained(list(history))  # a run without a test split has no rows
    colours = colour_index(list(dict.fromkeys([*history, *methods])))
    title = title or _title(metrics, trained)
    labels = labels or ("before · zero-shot", f"after · {method_label(trained)}" if trained else "after")
    parts = [
        f'<header class="top"><p class="kicker">uniadapter · report of a run</p><h1>{escape(title)}</h1>'
        f"{_paragraph(summary, 'lead')}{key_figures(metrics, trained)}</header>",
        results_section(metrics, colours),
        curves_section(history, colours),
        _examples_section(examples, labels, examples_note, looks_note, thumbnails or Thumbnails()),
        usage_section(folder, metrics.task, str(metrics.more.get("base", "embedded"))),
        facts_section(metrics, folder / "config.yaml"),
    ]
    return write_text(folder / PAGE, document(title, "\n".join(part for part in parts if part)))


def _trained(methods: Sequence[str]) -> str | None:
    """The trained method that the page is about; None if nothing was trained."""
    return next((m for m in ("uniadapter", *methods) if m in methods and m != "zero_shot"), None)


def _title(metrics: Metrics, trained: str | None) -> str:
    task = "VQA" if metrics.task == "vqa" else metrics.task[:1].upper() + metrics.task[1:].replace("_", " ")
    return f"{task}: {method_label(trained or 'zero_shot')}"


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def _examples_section(
    examples: Sequence[QueryExample | TextExample],
    labels: tuple[str, str],
    note: str,
    looks_note: str,
    thumbnails: Thumbnails,
) -> str:
    looks_note = _paragraph(looks_note, "note")
    queries = [example for example in examples if isinstance(example, QueryExample)]
    if queries:
        noun = "clip" if any(thumbnails.moves(item.image) for item in queries[0].after) else "picture"
        words = " ".join(part for part in (note or selection_note(queries), rank_changes(queries, noun)) if part)
        key = f'<span class="swatch">✓</span> the {noun} that belongs to the query'
        if any(item.hard_negative for query in queries for item in (*query.before, *query.after)):
            key += f'<span class="swatch near"></span> a hard negative: a {noun} of the same group'
        key = f'<p class="note key">{key}</p>{looks_note}'
        return _cards(_count(len(queries), "query", "queries"), words, key, query_cards(queries, labels, thumbnails))
    texts = [example for example in examples if isinstance(example, TextExample)]
    if not texts:
        return ""
    kind = ("question", "questions") if texts[0].question else ("caption", "captions")
    return _cards(
        _count(len(texts), *kind), note or selection_note(texts), looks_note, text_cards(texts, labels, thumbnails)
    )


def selection_note(examples: Sequence[QueryExample | TextExample]) -> str:
    """A sentence on how the examples were selected; "" if none of them has a `reason`."""
    chosen = [example.reason for example in examples if example.reason]
    if not chosen:
        return ""
    what = " and ".join([*([", ".join(f"the first {one}" for one in chosen[:-1])] if chosen[1:] else []),
                         f"the first {chosen[-1]}"])  # fmt: skip
    cards = "The first cards show" if len(chosen) > 1 else "The first card shows"
    rest = "; the others are evenly spaced, regardless of their result" if len(chosen) < len(examples) else ""
    return f"{cards} {what} of the test set{rest}."


def _count(number: int, one: str, many: str) -> str:
    return f"A {one}" if number == 1 else f"A dozen {many}" if number == 12 else f"{number} {many}"


def _cards(title: str, words: str, key: str, cards: str) -> str:
    return (
        f'<section class="queries"><h2>{title}</h2>{_paragraph(words, "note")}{key}'
        f'<div class="cards">\n{cards}\n</div></section>'
    )


def document(title: str, body: str) -> str:
    """A whole page that loads nothing and runs no script, of a title and the body's HTML."""
    style = files("uniadapter.report").joinpath("page.css").read_text(encoding="utf-8")
    # With the policy, the browser loads nothing and runs no script.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
<footer>Written by uniadapter {__version__} on {datetime.date.today().isoformat()}. All that this page shows is inside
this one file.</footer>
</main>
</body>
</html>
"""
