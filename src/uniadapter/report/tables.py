"""Tables of a run's results, for the terminal and for Markdown; the page uses the same columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table

from uniadapter.report.metrics import DIRECTIONS, Metrics, MetricsLike, Row

METHODS = {
    "zero_shot": "zero-shot",
    "uniadapter": "UniAdapter",
    "full_fine_tuning": "full fine-tuning",
    "question_only": "question only",
    "last_layers": "last layers",
    "bitfit": "BitFit",
    "heads": "heads only",
    "lora": "LoRA",
    "dora": "DoRA",
}
BETWEEN = " · "  # a method and its setting
ARROWS = {"text": "T", "image": "I", "video": "V"}
NO_VALUE = "\u2013"  # a dash
OTHER_SCORES = (("accuracy", "accuracy"), ("cider", "CIDEr"), ("bleu@4", "BLEU@4"))


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        group: heading over several columns, such as "text → image"; "" for none.
        label: name of the column.
        value: returns a row's number; None if the row has none.
        text: formats the number.
        best: which number is best: "high", "low", or "cost" (the lowest among rows that trained something).
    """

    group: str
    label: str
    value: Callable[[Row], float | None]
    text: Callable[[float], str]
    best: Literal["high", "low", "cost"]

    def show(self, row: Row) -> str:
        """The text of the cell; a dash if there is no number."""
        value = self.value(row)
        return NO_VALUE if value is None else self.text(value)


def series_name(method: str, setting: str | None = None) -> str:
    """Name of a method's or, with a setting, its variant's rows and curves."""
    return f"{method}{BETWEEN}{setting}" if setting else method


def method_label(series: str) -> str:
    """The display name of a method, or of a variant from `series_name`."""
    method, between, setting = series.partition(BETWEEN)
    return METHODS.get(method, method.replace("_", " ")) + between + setting


def row_label(row: Row) -> str:
    """Display name of a row: method and setting."""
    return method_label(series_name(row.method, row.setting))


def direction_label(direction: str) -> str:
    """`text_to_image` as "text → image"."""
    return direction.replace("_to_", " → ")


def size_text(size: float) -> str:
    """A number of bytes in kB, MB or GB; a dash for 0."""
    if not size:
        return NO_VALUE
    for unit, factor, digits in (("GB", 1e9, 2), ("MB", 1e6, 2), ("kB", 1e3, 0)):
        if size >= factor:
            return f"{size / factor:.{digits}f} {unit}"
    return f"{size:.0f} B"


def percent_text(percent: float) -> str:
    """A percentage without "%"; more digits for small ones."""
    if not percent:
        return "0"
    return f"{percent:.0f}" if percent >= 99.95 else f"{percent:.2f}" if percent >= 0.01 else f"{percent:.1g}"


def seconds_text(seconds: float) -> str:
    """A number of seconds, with one decimal below 10."""
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:,.0f}"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _score_column(direction: str, key: str, label: str) -> Column:
    def value(row: Row) -> float | None:
        return _number((getattr(row, direction) or {}).get(key))

    low = "rank" in key
    text = (lambda v: f"{v:.1f}") if low else (lambda v: f"{v:.2f}")
    return Column(direction_label(direction), label, value, text, "low" if low else "high")


def score_columns(rows: Sequence[Row], suffix: str = "", ranks: bool = False) -> list[Column]:
    """Columns of the scores that at least one row has.

    Args:
        rows: all rows.
        suffix: "_itc" for the scores without reranking.
        ranks: include median and mean rank.
    """
    keys = [("r@1", "R@1"), ("r@5", "R@5"), ("r@10", "R@10")]
    keys += [("median_rank", "median rank"), ("mean_rank", "mean rank")] if ranks else []
    columns = [_score_column(direction, key + suffix, label) for direction in DIRECTIONS for key, label in keys]
    if not suffix:
        for key, label in OTHER_SCORES:
            columns.append(Column("", label, lambda row, k=key: _number(row.more.get(k)), "{:.2f}".format, "high"))  # type: ignore[misc]
    return [column for column in columns if any(column.value(row) is not None for row in rows)]


def cost_columns() -> list[Column]:
    """Columns of costs: trainable percentage, size of the file, seconds."""
    return [
        Column("", "trainable %", lambda row: row.trainable_percent, percent_text, "cost"),
        Column("", "file", lambda row: row.checkpoint_bytes or None, size_text, "cost"),
        Column("", "seconds", lambda row: row.seconds, seconds_text, "cost"),
    ]


def group_by_test_set(rows: Sequence[Row]) -> dict[str | None, list[Row]]:
    """Rows grouped by test set, in order; only rows of the same test set are compared."""
    groups: dict[str | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.test_set, []).append(row)
    return groups


def coverage_notes(rows: Sequence[Row]) -> list[str]:
    """A sentence for each test set of which visuals were left out, with the number of visuals scored."""
    groups = group_by_test_set(rows)
    found = {(name, str(row.more["over"])) for name, members in groups.items() for row in members if "over" in row.more}
    named = sorted((f"{name or 'main test set'}: " if len(groups) > 1 else "", over) for name, over in found)
    return [f"{name}scores are over {over}; the rest could not be read" for name, over in named]


def best_rows(column: Column, rows: Sequence[Row]) -> set[int]:
    """Indices in `rows` of the best values, including ties as displayed; empty if there is nothing to compare."""
    shown = {}
    for place, row in enumerate(rows):
        value = column.value(row)
        if value is not None and (column.best != "cost" or row.trainable_parameters):
            shown[place] = value
    if len(shown) < 2:
        return set()
    best = (max if column.best == "high" else min)(shown.values())
    return {place for place, value in shown.items() if column.text(value) == column.text(best)}


def table(metrics: MetricsLike) -> Table:
    """The results as a table for the terminal, best values in bold; two directions fit 100 characters."""
    metrics = Metrics.of(metrics)
    columns = [*score_columns(metrics.rows), *cost_columns()]
    result = Table(title=f"{metrics.task}, seed {metrics.seed}", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    result.add_column("method", overflow="fold")
    for column in columns:
        result.add_column(_two_line_header(column), justify="right", no_wrap=True)
    several = len(group_by_test_set(metrics.rows)) > 1
    for name, rows in group_by_test_set(metrics.rows).items():
        if several:
            result.add_section()
            result.add_row(f"[dim]{_plain(name or 'main test set')}[/dim]")
        best = [best_rows(column, rows) for column in columns]
        for place, row in enumerate(rows):
            cells = [
                f"[bold]{c.show(row)}[/bold]" if place in b else c.show(row) for c, b in zip(columns, best, strict=True)
            ]
            result.add_row(_plain(row_label(row)), *cells)
    result.caption = _plain("\n".join(coverage_notes(metrics.rows))) or None
    return result


def markdown_table(metrics: MetricsLike) -> str:
    """The results as a Markdown table, best values in bold."""
    metrics = Metrics.of(metrics)
    columns = [*score_columns(metrics.rows), *cost_columns()]
    several = len(group_by_test_set(metrics.rows)) > 1
    heads = ["method", *(["test set"] if several else []), *(f"{_short(c.group)} {c.label}".strip() for c in columns)]
    left = 2 if several else 1
    lines = [heads, [":--"] * left + ["--:"] * len(columns)]
    for name, rows in group_by_test_set(metrics.rows).items():
        best = [best_rows(column, rows) for column in columns]
        for place, row in enumerate(rows):
            cells = [f"**{c.show(row)}**" if place in b else c.show(row) for c, b in zip(columns, best, strict=True)]
            lines.append([_cell(row_label(row)), *([_cell(name or "main")] if several else []), *cells])
    notes = "".join(f"\n{note}.\n" for note in coverage_notes(metrics.rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + notes


def _short(group: str) -> str:
    """A direction abbreviated: "T→I"."""
    return "→".join(ARROWS.get(part, part) for part in group.split(" → "))


def _two_line_header(column: Column) -> str:
    head, _, tail = column.label.partition(" ")
    return f"{_short(column.group)}\n{column.label}" if column.group else f"{head}\n{tail}" if tail else f"\n{head}"


def _plain(text: str) -> str:
    """Text with rich's markup escaped."""
    return text.replace("[", r"\[")


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
