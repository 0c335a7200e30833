"""The tables of docs/results.md, from the rows in results/*.json: mean and standard deviation over the seeds.

python benchmarks/result_tables.py
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
Row = dict[str, Any]
METHODS = {"zero_shot": "zero-shot", "uniadapter": "UniAdapter", "full_fine_tuning": "full fine-tuning"}
ASKED = {"question_only": "question only (nothing to see)", **METHODS}


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


TABLES: dict[str, tuple[dict[str, str], list[Column]]] = {
    "demo": (
        METHODS,
        [
            recall("T→I R@1", "text_to_image", 1),
            recall("T→I R@10", "text_to_image", 10),
            recall("I→T R@1", "image_to_text", 1),
            recall("I→T R@10", "image_to_text", 10),
            recall("T→I R@1, `novel`", "text_to_image", 1, "novel"),
        ],
    ),
    "demo-video": (
        {
            **METHODS,
            "uniadapter_fused": "UniAdapter, with matching",
            "uniadapter_fused_frame_aware": "the same, frame-aware",
            "uniadapter_fused_temporal": "the same, temporal embedding",
            "uniadapter_middle_frame": "UniAdapter, middle frame alone",
        },
        [
            recall("T→V R@1", "text_to_video", 1),
            recall("T→V R@10", "text_to_video", 10),
            recall("V→T R@1", "video_to_text", 1),
            recall("T→V R@1, `single`", "text_to_video", 1, "single"),
            recall("T→V R@1, `novel`", "text_to_video", 1, "novel"),
        ],
    ),
    "demo-vqa": (
        ASKED,
        [
            Column("accuracy", ("accuracy",)),
            *map(of_type, ("how many", "what is where", "is there", "left of")),
            Column("accuracy, `novel`", ("accuracy",), "novel"),
        ],
    ),
    "demo-easy-vqa": (
        ASKED,
        [Column("accuracy", ("accuracy",)), *map(of_type, ("color", "shape", "yes/no"))],
    ),
    "demo-videoqa": (
        ASKED,
        [
            Column("accuracy", ("accuracy",)),
            *map(of_type, ("how many", "first or last", "after", "before", "is there")),
            Column("accuracy, `novel`", ("accuracy",), "novel"),
        ],
    ),
    "demo-caption": (
        METHODS,
        [
            Column("CIDEr", ("cider",)),
            Column("BLEU-4", ("bleu@4",)),
            Column("CIDEr, `novel`", ("cider",), "novel"),
            Column("BLEU-4, `novel`", ("bleu@4",), "novel"),
        ],
    ),
}


def numbers(rows: list[Row], column: Column) -> list[float]:
    """A column's number in the row of each seed."""
    found = []
    for row in rows:
        if row.get("test_set") == column.test_set:
            value: Any = {**row, "accuracy_of": row.get("by_answer_type", {})}
            for key in column.path:
                value = value[key]
            found.append(float(value))
    return found


def cell(values: list[float]) -> str:
    """Mean and standard deviation (of the sample); of one run its number."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


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
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    methods, columns = TABLES[name]
    titles = " | ".join(["", "trained", *(column.title for column in columns)])
    lines = [f"|{titles} |", "|:--|" + "--:|" * (len(columns) + 1)]
    if "question_only" in methods:
        bare = [row for row in rows if row["method"] == "zero_shot"]
        novel = next((row for row in bare if row.get("test_set") == "novel"), None)
        lines.append(most_frequent(bare[0], columns, novel))
    for method, label in methods.items():
        mine = [row for row in rows if row["method"] == method]
        trained = f"{mine[0]['trainable_percent']:.2f}%"
        lines.append(" | ".join([f"| {label}", trained, *(cell(numbers(mine, column)) for column in columns)]) + " |")
    return lines


def main() -> None:
    """Print them."""
    for name in TABLES:
        sys.stdout.write(f"{name}\n\n" + "\n".join(table(name)) + "\n\n")


if __name__ == "__main__":
    main()
