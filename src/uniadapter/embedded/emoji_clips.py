"""The embedded video dataset: animated emoji as H.264 files, and composed clips that concatenate several of them.

A composed clip is made on first use by concatenating the packets of its animations, without decoding or encoding.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from uniadapter.embedded.cached_folders import fingerprint, prepare_folder
from uniadapter.embedded.questions import clip_questions, question_rows, read_kinds
from uniadapter.files.assets import asset_path

SPLITS = ("train", "val", "test", "test_novel")
SECONDS = 3  # length of one animation
VERSION = "2"  # part of the fingerprint: raise it when the concatenation or the questions change


def read_sequences(split: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The composed clips of a split: id, parts (hexcodes), captions, named (hexcodes per caption), partner."""
    path = (folder or asset_path("clips")) / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_animations(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Every animation by hexcode: label, family, split ("train", "val", "test", "novel"), names."""
    return json.loads(((folder or asset_path("clips")) / "clips.json").read_text(encoding="utf-8"))


def concatenate(parts: list[Path], target: Path) -> None:
    """Concatenate clips of the same encoder and size; each starts with a keyframe.

    Args:
        parts: the files, in order.
        target: the file to write.
    """
    with av.open(str(target), "w") as out:
        stream = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(video)
                shift = round(number * SECONDS / Fraction(video.time_base))
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:  # the empty packet at the end
                        continue
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    out.mux(packet)


def _rows(folder: Path, target: Path, split: str) -> list[dict[str, Any]]:
    """Write the composed clips of a split, and return one annotation per clip."""
    (target / "videos" / split).mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for clip in read_sequences(split, folder):
        name = f"videos/{split}/{clip['id']}.mp4"
        concatenate([folder / "single" / f"{code}.mp4" for code in clip["parts"]], target / name)
        rows.append({"video": name, "caption": clip["captions"]})
    return rows


def _single(folder: Path, target: Path, split: str) -> list[dict[str, Any]]:
    """Write the single animations of a split, and return annotations with the emoji's names as captions."""
    (target / "videos" / "single").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for code, clip in read_animations(folder).items():
        if clip["split"] == split:
            name = f"videos/single/{code}.mp4"
            (target / name).write_bytes((folder / "single" / f"{code}.mp4").read_bytes())
            rows.append({"video": name, "caption": clip["names"]})
    return rows


def prepare_clips(root: Path) -> Path:
    """Write the embedded clips into `root/clips` unless it is up to date; returns that folder.

    Files: `train.json` (composed and single clips), `val.json`, `test.json`, `test_novel.json` (composed),
    `test_single.json`, `vqa_train.json`, … with questions about the composed clips, and `videos/`.
    """
    source = asset_path("clips")

    def write(target: Path) -> None:
        listed = {split: _rows(source, target, split) for split in SPLITS}
        listed["train"] += _single(source, target, "train")
        listed["test_single"] = _single(source, target, "test")
        kinds = read_kinds()
        for split in SPLITS:
            questions = clip_questions(read_sequences(split, source), kinds, f"clips/{split}")
            listed[f"vqa_{split}"] = question_rows(questions, "video", f"videos/{split}/{{}}.mp4")
        for split, rows in listed.items():
            (target / f"{split}.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")

    stamp = fingerprint(source, ["SPLIT_SHA256"], fingerprint(asset_path("scenes"), ["kinds.json"], VERSION))
    return prepare_folder(Path(root) / "clips", stamp, write)
