"""The table of a comparison: a line for each method, with the mean over seeds and the difference to the reference."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from uniadapter.report.metrics import Row
from uniadapter.report.tables import (
    NO_VALUE,
    Column,
    method_label,
    percent_text,
    row_label,
    score_columns,
    seconds_text,
    size_text,
)

_FIRST = ("R@1", "accuracy", "CIDEr")  # the scores that a verdict is about


@dataclass(frozen=True)
class Line:
    """A method on one test set.

    Args:
        label: of the method.
        seeds: how many.
        scores: mean and standard deviation of each score, as text.
        difference: to the reference in points, with its 95% interval; "" for the reference itself.
        costs: trained share, bytes of the file, seconds, and peak memory while training, as text.
    """

    label: str
    seeds: int
    scores: tuple[str, ...]
    difference: str
    costs: tuple[str, ...]


COSTS = ("trainable %", "file", "train and test, s", "peak memory")


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation of the sample; of one run its number."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def lines_of(results: dict[str, Any]) -> tuple[list[str], dict[str, list[Line]]]:
    """The names of the scores, and for each test set the lines of its methods; "test" is the test split itself.

    Args:
        results: of `measure_seeds`.
    """
    every = [(values["arm"], Row.from_dict(values)) for values in results["rows"]]
    columns = [one for one in score_columns([row for _, row in every]) if one.label in _FIRST]
    titles = [f"{one.group} {one.label}".strip() for one in columns]
    grouped: dict[str, dict[str, list[Row]]] = {}
    for arm, row in every:
        grouped.setdefault(row.test_set or "test", {}).setdefault(arm, []).append(row)
    return titles, {
        test_set: [_line(rows, columns, results["verdicts"].get(test_set, {}).get(arm)) for arm, rows in arms.items()]
        for test_set, arms in grouped.items()
    }


def _line(rows: list[Row], columns: list[Column], verdict: dict[str, Any] | None) -> Line:
    found = [[value for row in rows if (value := one.value(row)) is not None] for one in columns]
    return Line(
        row_label(rows[0]),
        len(rows),
        tuple(spread(values) if values else NO_VALUE for values in found),
        _difference(verdict) if verdict else "",
        (
            percent_text(rows[0].trainable_percent),
            size_text(rows[0].checkpoint_bytes),
            seconds_text(statistics.median(row.seconds for row in rows)),
            size_text(statistics.median(row.more.get("peak_memory_bytes", 0) for row in rows)),
        ),
    )


def _difference(verdict: dict[str, Any]) -> str:
    low, high = verdict["interval_95"]
    return f"{-verdict['difference']:+.1f} ({-high:+.1f} to {-low:+.1f})"


def cells_of(line: Line) -> list[str]:
    """The cells of a line, in the order of `titles_of`."""
    return [line.label, str(line.seeds), *line.scores, line.difference, *line.costs]


def titles_of(scores: list[str], reference: str) -> list[str]:
    """The titles of the columns."""
    return ["", "seeds", *scores, f"beside {method_label(reference)}, 95%", *COSTS]


def table(results: dict[str, Any], reference: str) -> Table:
    """For the terminal."""
    scores, grouped = lines_of(results)
    made = Table(box=box.SIMPLE)
    for number, title in enumerate(titles_of(scores, reference)):
        made.add_column(title, justify="right" if number else "left")
    for test_set, lines in grouped.items():
        made.add_section()
        made.add_row(f"[bold]{test_set}")
        for line in lines:
            made.add_row(*cells_of(line))
    return made


def markdown(results: dict[str, Any], reference: str) -> str:
    """As Markdown, a table for each test set."""
    scores, grouped = lines_of(results)
    titles = titles_of(scores, reference)
    head = [f"| {' | '.join(titles)} |", "|:--|" + "--:|" * (len(titles) - 1)]
    return "\n\n".join(
        "\n".join([f"**{test_set}**", "", *head, *(f"| {' | '.join(cells_of(line))} |" for line in lines)])
        for test_set, lines in grouped.items()
    )
