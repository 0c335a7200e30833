"""Stands in for data of your own: takes some visuals and their rows out of an embedded task.

``python own_data.py scenes mine 200 60`` writes mine/train.jsonl with 200 pictures and mine/test.jsonl with 60.
Tasks: ``scenes`` and ``clips`` (with captions), ``vqa`` and ``videoqa`` (with questions), ``captions`` (five each).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from uniadapter.embedded import resolve_embedded


def take(task: str, split: str, count: int, folder: Path) -> None:
    """Copy the first ``count`` visuals of a split into ``folder``, and write their rows as JSONL, each once."""
    source = Path(resolve_embedded(f"embedded:{task}/{split}"))
    rows = json.loads(source.read_text(encoding="utf-8"))
    kind = "video" if "video" in rows[0] else "image"
    chosen = list(dict.fromkeys(row[kind] for row in rows))[:count]
    for name in chosen:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.parent / name, folder / name)
    lines = []
    for row in rows:
        if isinstance(row.get("caption"), list):
            row["caption"] = list(dict.fromkeys(row["caption"]))
        if row[kind] in chosen:
            lines.append(json.dumps(row) + "\n")
    (folder / f"{split}.jsonl").write_text("".join(dict.fromkeys(lines)), encoding="utf-8")


if __name__ == "__main__":
    _, chosen_task, target, train, test = sys.argv
    for part, size in (("train", train), ("test", test)):
        take(chosen_task, part, int(size), Path(target))
