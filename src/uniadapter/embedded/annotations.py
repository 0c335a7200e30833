"""Annotation files of the embedded tasks, from the specifications of scenes and clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniadapter.files.assets import asset_path

SPLITS = ("train", "val", "test", "test_novel")
Rows = list[dict[str, Any]]
# Of scenes and clips: what there is, and the questions about it.
SPECIFICATIONS = tuple(f"{kind}{split}.jsonl" for split in SPLITS for kind in ("", "vqa_"))


def read_specifications(name: str, split: str, folder: Path | None = None) -> Rows:
    """Rows of `SPLIT.jsonl`, or of `vqa_SPLIT.jsonl` for the split `vqa_SPLIT`.

    Args:
        name: "scenes" or "clips", the folder below `assets`.
        split: one of `SPLITS`, with the prefix of the file.
        folder: to read from instead.
    """
    path = (folder or asset_path(name)) / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def group_of(specification: dict[str, Any]) -> str:
    """What a scene or clip and its twin have in common: the smaller one of their ids."""
    return min(specification["id"], specification["partner"] or specification["id"])


def caption_rows(specification: dict[str, Any], texts: Sequence[str], visual: str, path: str, split: str) -> Rows:
    """Rows of one scene or clip and its captions, with the `group` of its hard negatives.

    In training there is one row per caption; else one row with all captions.

    Args:
        specification: with "id" and "partner".
        texts: the captions.
        visual: field of the path: "image" or "video".
        path: of the file.
        split: one of `SPLITS`.
    """
    group = group_of(specification)
    if split != "train":
        return [{visual: path, "caption": list(texts), "group": group}]
    return [{visual: path, "caption": text, f"{visual}_id": specification["id"], "group": group} for text in texts]


def question_rows(questions: Rows, specifications: Rows, visual: str, path: str) -> Rows:
    """Rows of the questions about a split, with the `group` of their hard negatives.

    Args:
        questions: rows of "about", "question", "answer" and "kind".
        specifications: of the scenes or clips that they are about.
        visual: field of the path: "image" or "video".
        path: with `{}` for the id.
    """
    groups = {one["id"]: group_of(one) for one in specifications}
    return [
        {visual: path.format(row["about"]), "question": row["question"], "answer": row["answer"],
         "question_id": number, "answer_type": row["kind"], "group": groups[row["about"]]}
        for number, row in enumerate(questions)
    ]  # fmt: skip


def write_annotations(folder: Path, listed: dict[str, Rows]) -> None:
    """Write `NAME.json` for each name and its rows."""
    for name, rows in listed.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")
