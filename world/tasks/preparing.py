"""Pictures, clips and annotation files made of the specifications at first use, in the layouts that the package reads.

What `uniadapter.embedded` does for today's tasks, for these: `train.json`, `val.json`, `test.json`, `test_novel.json`
hold captions, `vqa_*.json` questions, `captions_*.json` references.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uniadapter.embedded.cached_folders import fingerprint, prepare_folder
from uniadapter.embedded.emoji_clips import concatenate
from uniadapter.embedded.emoji_scenes import Atlas, render
from world.tasks import sequences
from world.tasks.scene import SPLITS

RENDERER = "1"  # part of the stamp: raise it when rendering or rows change


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file with a line of JSON each."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def question_rows(source: Path, visual: str, path: str) -> list[dict[str, Any]]:
    """Rows of an annotation file; `path` holds `{}` for the id."""
    return [
        {visual: path.format(row["about"]), "question": row["question"], "answer": row["answer"],
         "question_id": number, "answer_type": row["kind"]}
        for number, row in enumerate(read_lines(source))
    ]  # fmt: skip


def _write(target: Path, listed: dict[str, list[dict[str, Any]]]) -> None:
    for name, rows in listed.items():
        (target / f"{name}.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


def _captioned(split: str, visual: str, name: str, row: dict[str, Any], texts: list[str]) -> list[dict[str, Any]]:
    """Rows of one visual; in training one a caption. `twin` says which other visual differs in who is where only."""
    if split != "train":
        return [{visual: name, "caption": texts}]
    twin = min(row["id"], row["partner"] or row["id"])
    return [{visual: name, "caption": text, "image_id": row["id"], "twin": twin} for text in texts]


def _prepared(source: Path, target: Path, splits: list[str], others: list[str], write: Callable[[Path], None]) -> Path:
    names = [*others, *(f"{split}.jsonl" for split in splits), *(f"vqa_{split}.jsonl" for split in splits)]
    return prepare_folder(target, fingerprint(source, names, RENDERER), write)


def prepare_scenes(source: Path, root: Path) -> Path:
    """Render the scenes of the specifications in `source` into `root/scenes` unless they are there.

    Raises:
        WriteError: the folder cannot be written.
    """

    def write(target: Path) -> None:
        atlas = Atlas(source)
        for split in SPLITS:
            (target / "images" / split).mkdir(parents=True)
            captions, references = [], []
            for row in read_lines(source / f"{split}.jsonl"):
                name = f"images/{split}/{row['id']}.png"
                render(row, atlas).save(target / name, compress_level=1)
                captions += _captioned(split, "image", name, row, row["captions"])
                references += _captioned(split, "image", name, row, row["references"])
            asked = question_rows(source / f"vqa_{split}.jsonl", "image", f"images/{split}/{{}}.png")
            _write(target, {split: captions, f"captions_{split}": references, f"vqa_{split}": asked})

    return _prepared(source, root / "scenes", list(SPLITS), ["sprites.webp", "sprites.json"], write)


def prepare_clips(source: Path, root: Path) -> Path:
    """Put the clips of the specifications in `source` together in `root/clips` unless they are there.

    Raises:
        WriteError: the folder cannot be written.
    """

    def write(target: Path) -> None:
        for split in sequences.SPLITS:
            (target / "videos" / split).mkdir(parents=True)
            captions = []
            for row in read_lines(source / f"{split}.jsonl"):
                name = f"videos/{split}/{row['id']}.mp4"
                concatenate([source / "single" / f"{code}.mp4" for code in row["parts"]], target / name)
                captions.append({"video": name, "caption": row["captions"]})
            asked = question_rows(source / f"vqa_{split}.jsonl", "video", f"videos/{split}/{{}}.mp4")
            _write(target, {split: captions, f"vqa_{split}": asked})

    singles = [f"single/{path.name}" for path in sorted((source / "single").glob("*.mp4"))]
    return _prepared(source, root / "clips", list(sequences.SPLITS), ["clips.json", *singles], write)
