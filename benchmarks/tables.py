"""The tables of docs/costs.md, from the results that are there.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
WORKS = {"image 384 px": "pictures, 384 px", "video 8 x 224 px": "videos, 8 x 224 px"}
PEERS = ("usual", "strong", "peft_lora")


def by_work(name: str) -> dict[tuple[str, Any, str], dict[str, dict[str, Any]]]:
    """A result's rows: (work, candidates, dtype) to peer to row."""
    found: dict[tuple[str, Any, str], dict[str, dict[str, Any]]] = {}
    for row in json.loads((RESULTS / f"{name}.json").read_text()):
        work = next(label for start, label in WORKS.items() if row["work"].startswith(start))
        found.setdefault((work, row["candidates"], row["dtype"]), {})[row["peer"]] = row
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] == "all", item[0][2] == "bfloat16")))


def against(row: dict[str, Any] | None) -> str:
    """How many times as fast, and in what share of the memory."""
    if row is None:
        return "-"
    memory = "" if row["memory_ratio"] is None else f", {row['memory_ratio']:.2f}"
    return f"{row['ratio']:.{1 if row['ratio'] >= 10 else 2}f}{memory}"


def reranked() -> list[str]:
    """A line for each work."""
    lines = ["| | a pair, ms | usual way | strong peer | largest difference to either |", "|:--|--:|--:|--:|:--|"]
    for (work, candidates, dtype), rows in by_work("rerank").items():
        what = "all pairs" if candidates == "all" else f"k = {candidates}"
        apart = " / ".join(f"{rows[peer]['max_difference']:.0e}" for peer in ("usual", "strong"))
        pair = 1000 * rows["usual"]["seconds_a_pair"]
        lines.append(
            f"| {work}, {what}, {dtype} | {pair:.1f} | {against(rows['usual'])} | {against(rows['strong'])} | {apart} |"
        )
    return lines


def trained() -> list[str]:
    """A line for each work."""
    lines = ["| | a step, s | usual way | strong peer | PEFT's LoRA |", "|:--|--:|--:|--:|--:|"]
    for (work, _, dtype), rows in by_work("training").items():
        cells = " | ".join(against(rows.get(peer)) for peer in PEERS)
        lines.append(f"| {work}, {dtype} | {rows['usual']['seconds']:.2f} | {cells} |")
    return lines


def main() -> None:
    """Print them."""
    for table in (reranked(), trained()):
        sys.stdout.write("\n".join(table) + "\n\n")


if __name__ == "__main__":
    main()
