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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.compare.table import spread

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "compare"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
Row = dict[str, Any]


@dataclass(frozen=True)
class Label:
    """How an arm of `prove.py` is called.

    Args:
        text: in the tables.
        method: of its rows.
        setting: of its rows.
    """

    text: str
    method: str
    setting: str = ""


ARMS = {
    "question_only": Label("question only (nothing to see)", "question_only"),
    "zero_shot": Label("zero-shot", "zero_shot"),
    "without_fused": Label("UniAdapter without the fused part", "uniadapter", "without the fused part"),
    "fused_alone": Label("the fused part alone", "uniadapter", "the fused part alone"),
    "without_frame_aware": Label(
        "UniAdapter without frame-aware attention", "uniadapter", "without frame-aware attention"
    ),
    "without_temporal": Label("UniAdapter without temporal embedding", "uniadapter", "without temporal embedding"),
    "uniadapter": Label("UniAdapter", "uniadapter"),
    "self_attention": Label("UniAdapter with self-attention adapters", "uniadapter", "with self-attention adapters"),
    "full_fine_tuning": Label("full fine-tuning", "full_fine_tuning"),
    "equal_time": Label("full fine-tuning, equal time", "full_fine_tuning", "equal time"),
    "plain_adapters": Label("plain adapters (nothing shared)", "uniadapter", "nothing shared"),
    "lora": Label("LoRA", "lora"),
    "dora": Label("DoRA", "dora"),
}
# The lines of the README's table.
MAIN = {
    "scenes": "pictures by captions, R@1",
    "video": "videos by captions, R@1",
    "vqa": "questions about pictures",
    "videoqa": "questions about videos",
    "caption": "captions, CIDEr",
}
README_ARMS = ("zero_shot", "without_fused", "uniadapter", "lora", "full_fine_tuning")
# The lines of the table of verdicts on all tasks.
RIVALS = (
    "zero_shot",
    "without_fused",
    "self_attention",
    "plain_adapters",
    "lora",
    "dora",
    "full_fine_tuning",
    "equal_time",
)


@dataclass(frozen=True)
class Column:
    """A column: what it is called, where its number stands in a row, and in which test set's rows.

    Args:
        title: of the column.
        path: keys, from the row inwards.
        test_set: None for the test split itself.
    """

    title: str
    path: tuple[str, ...]
    test_set: str | None = None


def recall(title: str, direction: str, at: int, test_set: str | None = None) -> Column:
    """A column of recall."""
    return Column(title, (direction, f"r@{at}"), test_set)


def of_type(name: str) -> Column:
    """A column of the accuracy on one type of question."""
    return Column(name, ("accuracy_of", name))


# A column whose figure no row has is left out.
TABLES: dict[str, list[Column]] = {
    "scenes": [
        recall("T→I R@1", "text_to_image", 1),
        recall("T→I R@10", "text_to_image", 10),
        recall("I→T R@1", "image_to_text", 1),
        recall("I→T R@10", "image_to_text", 10),
        recall("T→I R@1, `novel`", "text_to_image", 1, "novel"),
    ],
    "video": [
        recall("T→V R@1", "text_to_video", 1),
        recall("T→V R@10", "text_to_video", 10),
        recall("V→T R@1", "video_to_text", 1),
        recall("T→V R@1, `novel`", "text_to_video", 1, "novel"),
    ],
    "vqa": [
        Column("accuracy", ("accuracy",)),
        *map(of_type, ("how many", "how many of a kind", "is there", "left of", "above")),
        *map(of_type, ("which kind", "what is left", "what is above")),
        Column("accuracy, `novel`", ("accuracy",), "novel"),
    ],
    "easy_vqa": [Column("accuracy", ("accuracy",)), *map(of_type, ("color", "shape", "yes/no"))],
    "videoqa": [
        Column("accuracy", ("accuracy",)),
        *map(of_type, ("appears", "how often", "first", "last", "after", "before", "before or after")),
        Column("accuracy, `novel`", ("accuracy",), "novel"),
    ],
    "forgetting": [
        recall("T→I R@1", "text_to_image", 1),
        recall("T→I R@10", "text_to_image", 10),
        recall("I→T R@1", "image_to_text", 1),
    ],
    "forgetting_vqa": [
        Column("accuracy", ("accuracy",)),
        *map(of_type, ("how many", "is there", "left of", "above", "what is left", "what is above")),
    ],
    "forgetting_caption": [Column("CIDEr", ("cider",)), Column("BLEU-4", ("bleu@4",))],
    "caption": [
        Column("CIDEr", ("cider",)),
        Column("BLEU-4", ("bleu@4",)),
        Column("CIDEr, `novel`", ("cider",), "novel"),
        Column("BLEU-4, `novel`", ("bleu@4",), "novel"),
    ],
}


def content(name: str) -> dict[str, Any]:
    """A task's results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def rows_of(rows: list[Row], arm: str) -> list[Row]:
    """The rows of an arm."""
    label = ARMS[arm]
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
    if rows_of(rows, "question_only"):
        bare = rows_of(rows, "zero_shot")
        novel = next((row for row in bare if row.get("test_set") == "novel"), None)
        lines.append(most_frequent(bare[0], columns, novel))
    for arm, label in ARMS.items():
        mine = rows_of(rows, arm)
        if mine:
            cells = [spread(numbers(mine, column), 1) for column in columns]
            lines.append(" | ".join([f"| {label.text}", f"{mine[0]['trainable_percent']:.2f}%", *cells]) + " |")
    return lines


def measured() -> list[str]:
    """The tasks that have results."""
    return [name for name in TABLES if (RESULTS / f"{name}.json").exists()]


def interval(ends: list[float], sign: str = "") -> str:
    """A 95% interval."""
    low, high = (f"{end:{sign}.1f}" for end in ends)
    return f"{low} to {high}"


def verdict_table(name: str) -> list[str]:
    """UniAdapter against each other arm: the difference of the main figure, its 95% interval and the verdict."""
    verdicts: dict[str, dict[str, Any]] = content(name)["verdicts"]
    titles = ["UniAdapter against", *(title for one in verdicts for title in (_points(one), "95% interval", "it is"))]
    lines = ["| " + " | ".join(titles) + " |", "|:--|" + "--:|--:|:--|" * len(verdicts)]
    for arm, label in ARMS.items():
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
        cells = []
        for name in there:
            found = content(name)["verdicts"]["test"].get(arm)
            cells.append("" if found is None else f"*{found['verdict']}*, {found['difference']:+.1f} "
                         f"({interval(found['interval_95'], '+')})")  # fmt: skip
        if any(cells):
            lines.append(f"| {ARMS[arm].text} | " + " | ".join(cells) + " |")
    return lines


def _points(test_set: str) -> str:
    return "points" if test_set == "test" else f"points, `{test_set}`"


def readme_table() -> list[str]:
    """The README's lines: each task's main figure on the test split, the mean over seeds with its 95% interval."""
    there = measured()
    percents = [rows_of(content(name)["rows"], "uniadapter")[0]["trainable_percent"] for name in MAIN if name in there]
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
    return {"README": readme_table(), "overview": overview(), **tables}


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
        return
    for name, lines in tables.items():
        sys.stdout.write(f"{name}\n\n" + "\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
