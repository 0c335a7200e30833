"""The tables of README.md and docs/results.md, from results/compare/*.json.

Tables of results: mean and standard deviation over the seeds. Verdicts and the README's table: 95% intervals.

    python benchmarks/result_tables.py            prints them
    python benchmarks/result_tables.py --write    puts them into the pages
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from result_layout import ARMS, CURVES, MAIN, README_ARMS, RIVALS, TABLES, Column, Label

from uniadapter.compare.curve import curve
from uniadapter.compare.table import spread

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "compare"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
Row = dict[str, Any]


def content(name: str) -> dict[str, Any]:
    """A task's results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def labels(rows: list[Row]) -> dict[str, Label]:
    """The arms' names in the tables: those of all tasks, then those that only these results have."""
    known = {(label.method, label.setting) for label in ARMS.values()}
    own = {row["arm"]: Label(row["setting"], row["method"], row["setting"]) for row in rows
           if (row["method"], row.get("setting", "")) not in known}  # fmt: skip
    return ARMS | own


def rows_of(rows: list[Row], label: Label) -> list[Row]:
    """The rows of an arm."""
    return [row for row in rows if (row["method"], row.get("setting", "")) == (label.method, label.setting)]


def numbers(rows: list[Row], column: Column) -> list[float]:
    """A column's number in the row of each seed."""
    found = []
    for row in rows:
        if row.get("test_set") == column.test_set:
            value: Any = {**row, "accuracy_of": row.get("by_answer_type", {})}
            for key in column.path:
                value = value.get(key, {})
            if value != {}:
                found.append(float(value))
    return found


def most_frequent(row: Row, columns: list[Column], novel: Row | None) -> str:
    """The line of whoever answers each type of question with the test split's most frequent answer to it."""
    of = {"novel": novel, None: row}
    cells = []
    for column in columns:
        source = of[column.test_set]
        assert source is not None, column
        kind = column.path[-1]
        value = source["majority_of_answer_type"] if kind == "accuracy" else source["majority_by_answer_type"][kind]
        cells.append(f"{value:.1f}")
    return " | ".join(["| most frequent answer of each type", "-", *cells]) + " |"


def table(name: str) -> list[str]:
    """A task's lines of Markdown."""
    rows = content(name)["rows"]
    columns = [column for column in TABLES[name] if numbers(rows, column)]
    titles = " | ".join(["", "trained", *(column.title for column in columns)])
    lines = [f"|{titles} |", "|:--|" + "--:|" * (len(columns) + 1)]
    if rows_of(rows, ARMS["question_only"]):
        bare = rows_of(rows, ARMS["zero_shot"])
        novel = next((row for row in bare if row.get("test_set") == "novel"), None)
        lines.append(most_frequent(bare[0], columns, novel))
    for label in labels(rows).values():
        mine = rows_of(rows, label)
        if mine:
            cells = [spread(numbers(mine, column), 1) for column in columns]
            lines.append(" | ".join([f"| {label.text}", f"{mine[0]['trainable_percent']:.2f}%", *cells]) + " |")
    return lines


def measured(names: Iterable[str] = TABLES) -> list[str]:
    """The tasks that have results."""
    return [name for name in names if (RESULTS / f"{name}.json").exists()]


def interval(ends: list[float], sign: str = "") -> str:
    """A 95% interval."""
    low, high = (f"{end:{sign}.1f}" for end in ends)
    return f"{low} to {high}"


def told(verdict: dict[str, Any] | None) -> str:
    """A verdict, its difference and interval in a cell."""
    if verdict is None:
        return ""
    return f"*{verdict['verdict']}*, {verdict['difference']:+.1f} ({interval(verdict['interval_95'], '+')})"


def verdict_table(name: str) -> list[str]:
    """UniAdapter against each other arm: the difference of the main figure, its 95% interval and the verdict."""
    results = content(name)
    verdicts: dict[str, dict[str, Any]] = results["verdicts"]
    titles = ["UniAdapter against", *(title for one in verdicts for title in (_points(one), "95% interval", "it is"))]
    lines = ["| " + " | ".join(titles) + " |", "|:--|" + "--:|--:|:--|" * len(verdicts)]
    for arm, label in labels(results["rows"]).items():
        found = [verdicts[one][arm] for one in verdicts if arm in verdicts[one]]
        if found:
            cells = [
                f"{one['difference']:+.1f} | {interval(one['interval_95'], '+')} | *{one['verdict']}*" for one in found
            ]
            lines.append(f"| {label.text} | " + " | ".join(cells) + " |")
    return lines


def overview() -> list[str]:
    """UniAdapter against each other arm on the test split of each task: verdict, difference and 95% interval."""
    there = [name for name in MAIN if name in measured()]
    lines = ["| UniAdapter against | " + " | ".join(MAIN[name] for name in there) + " |", "|:--|" + ":--|" * len(there)]
    for arm in RIVALS:
        cells = [told(content(name)["verdicts"]["test"].get(arm)) for name in there]
        if any(cells):
            lines.append(f"| {ARMS[arm].text} | " + " | ".join(cells) + " |")
    return lines


def curve_table(name: str) -> list[str]:
    """The main figure at each value of a setting, a line for each method, then UniAdapter against the others."""
    results = content(name)
    vary = results["vary"]
    points: dict[str, list[list[float]]] = vary["points"]
    values = sorted({point[0] for mine in points.values() for point in mine})
    lines = [f"| {CURVES[name]} | " + " | ".join(f"{value:g}" for value in values) + " |"]
    lines.append("|:--|" + "--:|" * len(values))
    for arm, mine in points.items():
        means = {value: f"{mean:.1f} ({interval([low, high])})" for value, mean, low, high in mine}
        lines.append(f"| {ARMS[arm].text} | " + " | ".join(means.get(value, "") for value in values) + " |")
    verdicts: dict[str, dict[str, Any]] = {**vary["verdicts"], f"{vary['own']:g}": results["verdicts"]["test"]}
    for arm in points:
        cells = [told(verdicts.get(f"{value:g}", {}).get(arm)) for value in values]
        if any(cells):
            lines.append(f"| UniAdapter against {ARMS[arm].text} | " + " | ".join(cells) + " |")
    return lines


def _points(test_set: str) -> str:
    return "points" if test_set == "test" else f"points, `{test_set}`"


def readme_table() -> list[str]:
    """The README's lines: each task's main figure on the test split, the mean over seeds with its 95% interval."""
    there = measured()
    percents = [
        rows_of(content(name)["rows"], ARMS["uniadapter"])[0]["trainable_percent"] for name in MAIN if name in there
    ]
    low, high = f"{min(percents):.1f}", f"{max(percents):.1f}"
    trained = f"{low}%" if low == high else f"{low} to {high}%"
    names = [ARMS[arm].text + (f", {trained}" if arm == "uniadapter" else "") for arm in README_ARMS]
    lines = ["| | " + " | ".join([*names, "the fused part adds"]) + " |", "|:--|" + "--:|" * (len(names) + 1)]
    for name, title in MAIN.items():
        if name not in there:
            lines.append(f"| {title} | not measured yet |" + " |" * len(names))
            continue
        found = content(name)
        cells = [_mean(found["means"]["test"].get(arm)) for arm in README_ARMS]
        adds = found["verdicts"]["test"].get("without_fused")
        cells.append("" if adds is None else f"{adds['difference']:+.1f} ({interval(adds['interval_95'], '+')})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _mean(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['mean']:.1f} ({interval(found['interval_95'])})"


KINDS = {"figures": table, "verdicts": verdict_table}


def blocks() -> dict[str, list[str]]:
    """All tables by the names of their places in the pages."""
    tables = {f"{name} {kind}": made(name) for name in measured() for kind, made in KINDS.items()}
    curves = {f"{name} curve": curve_table(name) for name in measured(CURVES)}
    return {"README": readme_table(), "overview": overview(), **tables, **curves}


def rewritten(page: str, tables: dict[str, list[str]]) -> str:
    """A page with the tables in their places, which comments mark: `<!-- table: NAME -->` before, `<!-- -->` behind."""

    def place(found: re.Match[str]) -> str:
        lines = tables.get(found[1])
        return found[0] if lines is None else "\n".join([f"<!-- table: {found[1]} -->", "", *lines, "", "<!-- -->"])

    return re.sub(r"<!-- table: ([^>]+) -->\n.*?<!-- -->", place, page, flags=re.DOTALL)


def main() -> None:
    """Print them, or write them into the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put them into README.md and docs/results.md")
    tables = blocks()
    if parser.parse_args().write:
        for page in PAGES:
            page.write_text(rewritten(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
        for name in measured(CURVES):
            curve(content(name)["vary"], ROOT / "docs" / f"{name}.png")
        return
    for name, lines in tables.items():
        sys.stdout.write(f"{name}\n\n" + "\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
