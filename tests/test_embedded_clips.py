"""The embedded clips: captions that fit one clip only, disjoint families, and files that match their lists."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from uniadapter.config import ConfigError
from uniadapter.data.media.video import load_clip
from uniadapter.embedded import emoji_clips, resolve_embedded
from uniadapter.files.assets import asset_path

ROOT = Path(__file__).resolve().parents[1]
SPLITS = emoji_clips.SPLITS
FRAMES = 24


@pytest.fixture(scope="module")
def lists() -> dict[str, list[dict[str, Any]]]:
    return {split: emoji_clips.read_sequences(split) for split in SPLITS}


@pytest.fixture(scope="module")
def animations() -> dict[str, dict[str, Any]]:
    return emoji_clips.read_animations()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emoji_clips.prepare_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def reader() -> Any:
    """The independent reader of captions, which is in a checkout but not in the wheel."""
    sys.path.insert(0, str(ROOT))
    try:
        return pytest.importorskip("world.sequences")
    finally:
        sys.path.remove(str(ROOT))


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_committed_hashes_are_those_of_the_files(animations: dict[str, dict[str, Any]]) -> None:
    lines = (asset_path("clips") / "SPLIT_SHA256").read_text().splitlines()
    stated = {name: digest for digest, name in map(str.split, lines)}
    assert {f"single/{code}.mp4" for code in animations} | {f"{split}.jsonl" for split in SPLITS} <= set(stated)
    for name, digest in stated.items():
        assert hashlib.sha256((asset_path("clips") / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("split", SPLITS)
def test_every_caption_is_true_of_its_clip_and_of_no_other(
    split: str, lists: dict[str, list[dict[str, Any]]], animations: dict[str, dict[str, Any]], reader: Any
) -> None:
    rows = lists[split]
    texts = [text for row in rows for text in row["captions"]]
    assert len(texts) == len(set(texts)) == 3 * len(rows)
    holding: dict[str, set[str]] = {}
    for row in rows:
        for code in row["parts"]:
            holding.setdefault(code, set()).add(row["id"])
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        names = {code: animations[code]["names"] for code in row["parts"]}
        for text, named in zip(row["captions"], row["named"], strict=True):
            assert reader.read_back(text, names) == named, text
            assert reader.in_order(named, row["parts"])
            rivals = set.intersection(*(holding[code] for code in named)) - {row["id"]}
            assert not any(reader.in_order(named, by_id[other]["parts"]) for other in rivals), (row["id"], text)


def test_families_are_of_one_split_only(
    lists: dict[str, list[dict[str, Any]]], animations: dict[str, dict[str, Any]]
) -> None:
    families = {
        split: {animations[code]["family"] for row in rows for code in row["parts"]} for split, rows in lists.items()
    }
    for i, one in enumerate(SPLITS):
        assert not any(families[one] & families[other] for other in SPLITS[:i])
    for split, rows in lists.items():
        kinds = {animations[code]["split"] for row in rows for code in row["parts"]}
        assert kinds == {"novel" if split == "test_novel" else split}


def test_the_test_split_is_large_enough_and_asks_for_order_and_for_parts(
    lists: dict[str, list[dict[str, Any]]],
) -> None:
    rows = lists["test"]
    assert len(rows) >= 400
    named = [(row, names) for row in rows for names in row["named"]]
    assert len(named) >= 1000
    assert sum(len(names) < len(row["parts"]) for row, names in named) > len(named) / 4
    assert sum(row["partner"] is not None for row in rows) > len(rows) / 4


def test_a_joined_clip_decodes_to_the_frames_of_its_parts(
    written: Path, lists: dict[str, list[dict[str, Any]]]
) -> None:
    for row in lists["val"][:12]:
        path = written / "videos" / "val" / f"{row['id']}.mp4"
        parts = [decoded(asset_path("clips") / "single" / f"{code}.mp4") for code in row["parts"]]
        assert all(part.shape == (FRAMES, 96, 96, 3) for part in parts)
        assert np.array_equal(decoded(path), np.concatenate(parts)), row["id"]
        with av.open(str(path)) as container:
            seconds = container.streams.video[0].duration * container.streams.video[0].time_base
        assert abs(float(seconds) - emoji_clips.SECONDS * len(parts)) < 0.2


def test_our_reader_takes_the_middles_of_the_parts(written: Path, lists: dict[str, list[dict[str, Any]]]) -> None:
    row = lists["val"][0]
    count = len(row["parts"])
    frames = load_clip(written / "videos" / "val" / f"{row['id']}.mp4", "", count)
    for code, frame in zip(row["parts"], frames, strict=True):
        middle = decoded(asset_path("clips") / "single" / f"{code}.mp4")[FRAMES // 2]
        assert np.abs(np.asarray(frame, dtype=int) - middle.astype(int)).mean() < 1


def test_the_animations_move(animations: dict[str, dict[str, Any]]) -> None:
    for code in sorted(animations)[::25]:
        frames = decoded(asset_path("clips") / "single" / f"{code}.mp4").astype(int)
        assert np.abs(frames - frames[:1]).max(axis=(1, 2, 3)).max() > 40, code


def test_the_lists_that_are_written(
    written: Path, lists: dict[str, list[dict[str, Any]]], animations: dict[str, dict[str, Any]]
) -> None:
    listed = {name: json.loads((written / f"{name}.json").read_text()) for name in (*SPLITS, "test_single")}
    single = [a for a in animations.values() if a["split"] == "train"]
    assert len(listed["train"]) == len(lists["train"]) + len(single)
    assert [row["caption"] for row in listed["test"]] == [row["captions"] for row in lists["test"]]
    assert [row["caption"] for row in listed["test_single"]] == [
        a["names"] for a in animations.values() if a["split"] == "test"
    ]
    assert all((written / row["video"]).is_file() for rows in listed.values() for row in rows)


@pytest.mark.parametrize("name", ["embedded:train", "embedded:films/train", "embedded:clips/tset"])
def test_unknown_names_list_the_known_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIADAPTER_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no"):
        resolve_embedded(name)
