"""The table of several comparisons: a line for each method, a column for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from uniadapter.compare.table import lines_of
from uniadapter.report.tables import NO_VALUE, method_label

Cell = tuple[str, str]  # the main score, and the difference to the reference with its 95% interval


def task_lines(results: Mapping[str, dict[str, Any]]) -> tuple[list[str], dict[str, list[Cell]]]:
    """The titles of the tasks, and for each method its cells on the test splits.

    Args:
        results: of `measure_seeds`, by the name of the task.
    """
    titles: list[str] = []
    found: dict[str, dict[str, Cell]] = {}
    for name, one in results.items():
        scores, lines = lines_of(one)
        titles.append(f"{name}, {scores[0]}")
        for line in lines["test"]:
            found.setdefault(line.label, {})[name] = (line.scores[0], line.difference)
    return titles, {
        label: [cells.get(name, (NO_VALUE, "")) for name in results] for label, cells in found.items()
    }  # fmt: skip


def task_table(results: Mapping[str, dict[str, Any]], reference: str) -> Table:
    """For the terminal; the second line of a cell is the difference to the reference."""
    titles, lines = task_lines(results)
    made = Table(box=box.SIMPLE, caption=_caption(reference), show_lines=True)
    for number, title in enumerate(["", *titles]):
        made.add_column(title, justify="right" if number else "left")
    for label, cells in lines.items():
        made.add_row(label, *("\n".join(part for part in cell if part) for cell in cells))
    return made


def task_markdown(results: Mapping[str, dict[str, Any]], reference: str) -> str:
    """As Markdown."""
    titles, lines = task_lines(results)
    rows = [["", *titles], [":--", *["--:"] * len(titles)]]
    rows += [[label, *("<br>".join(part for part in cell if part) for cell in cells)] for label, cells in lines.items()]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", _caption(reference)])


def _caption(reference: str) -> str:
    return (
        f"Mean ± standard deviation over seeds on the test split; below it the difference to {method_label(reference)} "
        "with its 95% interval."
    )
