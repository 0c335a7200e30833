"""The page's sections with numbers: key figures, results, curves, facts of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from uniadapter.report.metrics import DIRECTIONS, Metrics, Row
from uniadapter.report.plots import History, panel_svg, quantities, title_of
from uniadapter.report.tables import (
    OTHER_SCORES,
    Column,
    best_rows,
    cost_columns,
    direction_label,
    group_by_test_set,
    method_label,
    percent_text,
    row_label,
    score_columns,
    series_name,
    size_text,
)

NAMED = 8  # visuals left out that are named


def duration_text(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def key_figures(metrics: Metrics, trained: str | None) -> str:
    """The key figures of the first test set, as HTML."""
    rows = next(iter(group_by_test_set(metrics.rows).values()), [])
    before = next((row for row in rows if row.method == "zero_shot"), None)
    after = next((row for row in rows if row.method == trained), None)
    shown = after or before
    if shown is None:
        return ""
    tiles = [_score_tile(name, old, new) for name, old, new in _headline(before if after else None, shown)]
    if after is not None and after.trainable_parameters:
        share = f"{after.trainable_parameters:,} parameters"
        tiles.append(_tile("trained", f"{percent_text(after.trainable_percent)}%", share))
    if after is not None and after.checkpoint_bytes:
        tiles.append(_tile("file", size_text(after.checkpoint_bytes), "what was trained, saved"))
    tiles.append(_tile("time", duration_text(shown.seconds), "training and evaluation" if after else "evaluation"))
    return f'<div class="figures">{"".join(tiles)}</div>'


def _headline(before: Row | None, after: Row) -> list[tuple[str, float | None, float]]:
    def values(row: Row | None) -> dict[str, float | None]:
        if row is None:
            return {}
        found = {f"R@1 {direction_label(d)}": (getattr(row, d) or {}).get("r@1") for d in DIRECTIONS}
        return {**found, **{label: row.more.get(key) for key, label in OTHER_SCORES}}

    old = values(before)
    return [(name, old.get(name), value) for name, value in values(after).items() if value is not None]


def _score_tile(name: str, old: float | None, new: float) -> str:
    if old is None:
        return _tile(name, f"{new:.1f}", "")
    change = new - old
    sign = "+" if change > 0 else "\u2212" if change < 0 else "±"
    return _tile(name, f"{new:.1f}", f"from {old:.1f} zero-shot, {sign}{abs(change):.1f}")


def _tile(name: str, value: str, note: str) -> str:
    return f'<div class="figure"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'


def results_section(metrics: Metrics, colours: Mapping[str, int]) -> str:
    """The table of results and, collapsed, all scores with and without reranking."""
    if not metrics.rows:
        return ""
    main = _table(metrics.rows, [*score_columns(metrics.rows), *cost_columns()], colours, metrics)
    reranked = any_reranked(metrics.rows)
    kinds = [("_itc", "Contrastive similarity alone" if reranked else "Contrastive similarity; nothing was reranked")]
    if reranked or not score_columns(metrics.rows, "_itc"):
        kinds.insert(0, ("", "Reranked by the matching head" if reranked else "Every score"))
    every = ""
    for suffix, words in kinds:
        columns = score_columns(metrics.rows, suffix, ranks=True)
        if any("rank" in c.label or c.group for c in columns):
            every += f"<h3>{words}</h3>{_table(metrics.rows, columns, colours, metrics)}"
    summary = "Ranks, and scores without reranking" if reranked else "Ranks"
    folded = f"<details><summary>{summary}</summary>{every}</details>" if every else ""
    words = "Scores are 0 to 100; the best of each column is bold"
    if any(row.trainable_parameters for row in metrics.rows):
        words += ", of costs the lowest of the methods that train. Seconds are training plus final evaluation"
    lost, kinds_table = left_out_note(metrics), _by_type(metrics, colours)
    return f'<section><h2>Results</h2>{lost}{main}<p class="note">{words}.</p>{kinds_table}{folded}</section>'


def _by_type(metrics: Metrics, colours: Mapping[str, int]) -> str:
    """The table of accuracies by type of question or answer, as the annotation file names them; "" without types."""
    found = [row.more["by_answer_type"] for row in metrics.rows if isinstance(row.more.get("by_answer_type"), Mapping)]
    kinds = list(dict.fromkeys(kind for types in found for kind in types))
    if len(kinds) < 2:
        return ""
    columns = [Column("", str(kind) or "other", partial(_of_type, kind), "{:.1f}".format, "high") for kind in kinds]
    return f"<h3>Accuracy by type</h3>{_table(metrics.rows, columns, colours, metrics)}"


def _of_type(kind: str, row: Row) -> float | None:
    types = row.more.get("by_answer_type")
    value = types.get(kind) if isinstance(types, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def left_out_note(metrics: Metrics) -> str:
    """A note for each test set of which visuals were left out, and over how many its scores are; "" if none."""
    lines = []
    lost = metrics.more.get("skipped")
    for name, what in lost.items() if isinstance(lost, Mapping) else ():
        if not isinstance(what, Mapping) or not what.get("count"):
            continue
        faults = ", ".join(f"{count} {kind}" for kind, count in dict(what.get("faults") or {}).items())
        names = [str(one) for one in what.get("names") or ()]
        shown = f": {', '.join(names[:NAMED])}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        words = f"{name}: the scores are over {what.get('over')}. Left out: {faults}{shown if names else ''}."
        lines.append(f'<p class="lost">{escape(words)}</p>')
    return "".join(lines)


def any_reranked(rows: Sequence[Row]) -> bool:
    """Whether any score differs from the same score without reranking ("_itc")."""
    for row in rows:
        for direction in DIRECTIONS:
            scores = getattr(row, direction) or {}
            if any(f"{key}_itc" in scores and scores[f"{key}_itc"] != value for key, value in scores.items()):
                return True
    return False


def _table(rows: Sequence[Row], columns: list[Column], colours: Mapping[str, int], metrics: Metrics) -> str:
    groups = group_by_test_set(rows)
    spans = [(group, len(list(members))) for group, members in groupby(columns, key=lambda column: column.group)]
    top = "".join(f'<th colspan="{n}"{" class=group" if g else ""}>{escape(g)}</th>' for g, n in spans)
    edges = _group_starts(columns)
    heads = "".join(f'<th scope="col"{_kind(n in edges)}>{escape(c.label)}</th>' for n, c in enumerate(columns))
    bodies = []
    for name, members in groups.items():
        best = [best_rows(column, members) for column in columns]
        lines = []
        if len(groups) > 1:
            wide = f'<th colspan="{len(columns) + 1}" scope="rowgroup">{escape(name or "main test set")}</th>'
            lines.append(f'<tr class="set">{wide}</tr>')
        for place, row in enumerate(members):
            cells = "".join(_cell(c, row, place in best[n], n in edges) for n, c in enumerate(columns))
            colour = colours.get(series_name(row.method, row.setting), colours.get(row.method, 0))
            dot = f'<i class="dot c{colour}"></i>'
            lines.append(f'<tr><th scope="row">{dot}{escape(row_label(row))}</th>{cells}</tr>')
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    caption = f'<caption class="unseen">{escape(metrics.task)}, seed {metrics.seed}</caption>'
    head = f'<thead><tr><td></td>{top}</tr><tr><th scope="col">method</th>{heads}</tr></thead>'
    return f'<div class="wide"><table>{caption}{head}{"".join(bodies)}</table></div>'


def _cell(column: Column, row: Row, best: bool, edge: bool) -> str:
    """A table cell; its label is shown on narrow screens, where rows are stacked and there is no header."""
    label, text = escape(f"{column.group} {column.label}".strip()), column.show(row)
    return f'<td{_kind(edge)} data-label="{label}">{f"<b>{text}</b>" if best else text}</td>'


def _group_starts(columns: Sequence[Column]) -> set[int]:
    return {n for n, column in enumerate(columns) if n and column.group != columns[n - 1].group}


def _kind(edge: bool) -> str:
    return ' class="edge"' if edge else ""


def curves_section(history: History, colours: Mapping[str, int]) -> str:
    """The training curves: one panel for each loss and for the learning rate."""
    names = quantities(history)
    if not names:
        return ""
    legend = "".join(f'<li><i class="dot c{colours[m]}"></i>{escape(method_label(m))}</li>' for m in history)
    panels = "".join(
        f"<figure><figcaption>{escape(title_of(name))}</figcaption>"
        f'<div role="img" aria-label="{escape(_aria_label(history, name))}">{panel_svg(history, name)}</div></figure>'
        for name in names
    )
    return f'<section><h2>Training</h2><ul class="legend">{legend}</ul><div class="curves">{panels}</div></section>'


def _aria_label(history: History, quantity: str) -> str:
    """Alternative text of a curve: its first and last value."""
    parts = []
    for method, records in history.items():
        values = [r[quantity] for r in records if isinstance(r.get(quantity), (int, float))]
        if values:
            parts.append(f"{method_label(method)} from {values[0]:.3g} to {values[-1]:.3g}")
    return f"{title_of(quantity)} against the step: {'; '.join(parts)}"


def facts_section(metrics: Metrics, config: Path) -> str:
    """The facts of the run: top-level values of the metrics, each method's parameters, the config."""
    facts: list[tuple[str, str]] = [("task", metrics.task), ("seed", str(metrics.seed))]
    for key, value in metrics.more.items():
        name, text = _fact(key, value)
        if text and key != "skipped":  # shown with the results
            facts.append((name, text))
    for row in next(iter(group_by_test_set(metrics.rows).values()), []):
        if row.trainable_parameters:
            facts.append((row_label(row), _parameters(row)))
    lines = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    return f'<section><h2>The run</h2><dl class="facts">{lines}</dl>{_config(config)}</section>'


def _fact(key: str, value: Any) -> tuple[str, str]:
    if key.endswith("seconds") and isinstance(value, (int, float)):
        return key.removesuffix("seconds").replace("_", " ").strip() + " time", duration_text(value)
    if isinstance(value, Mapping):
        return key.replace("_", " "), ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
    if isinstance(value, (list, tuple)):
        return key.replace("_", " "), ", ".join(str(v) for v in value)
    return key.replace("_", " "), "" if value is None else str(value)


def _parameters(row: Row) -> str:
    text = f"{row.trainable_parameters:,} trained parameters, {percent_text(row.trainable_percent)}% of the base"
    asides = []
    if row.adapter_percent:
        asides.append(f"adapters alone {percent_text(row.adapter_percent)}%")
    bare = row.more.get("trainable_percent_without_embeddings")
    if isinstance(bare, (int, float)) and row.adapter_percent:  # not for full fine-tuning
        asides.append(f"{percent_text(bare)}% of the base without its token embeddings")
    return f"{text} ({', '.join(asides)})" if asides else text


def _config(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    return f"<details><summary>config.yaml</summary><pre>{escape(text.strip())}</pre></details>"
