"""The embedded clips: captions that are true of one clip only, twins, and files that show what their lists say."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from uniadapter.app.parsing import read_config
from uniadapter.config import ConfigError
from uniadapter.data.media.video import load_clip, sample_frame_indices
from uniadapter.embedded import emoji_clips, resolve_embedded
from uniadapter.files.assets import asset_path, package_path

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"train": 1600, "val": 120, "test": 400, "test_novel": 100}
SPLITS = list(SIZES)
FRAMES = 24
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def lists() -> dict[str, Rows]:
    return {split: emoji_clips.read_clips(split) for split in SPLITS}


@pytest.fixture(scope="module")
def animations() -> dict[str, dict[str, Any]]:
    return json.loads((asset_path("clips") / "clips.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emoji_clips.prepare_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def reading() -> Any:
    """The independent reader of captions, which is in a checkout but not in the wheel."""
    sys.path.insert(0, str(ROOT))
    try:
        return pytest.importorskip("world.tasks.reading_clips")
    finally:
        sys.path.remove(str(ROOT))


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("split", SPLITS)
def test_every_caption_is_true_of_its_clip_and_not_of_the_twin(
    split: str, lists: dict[str, Rows], reading: Any
) -> None:
    rows, names = lists[split], json.loads((asset_path("scenes") / "names.json").read_text())
    texts = [text for row in rows for text in row["captions"]]
    assert len(rows) == SIZES[split]
    assert len(texts) == len(set(texts)) == 3 * len(rows)
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        twin = by_id[row["partner"]]
        assert twin["partner"] == row["id"]
        assert sorted(twin["parts"]) == sorted(row["parts"])
        assert twin["parts"] != row["parts"]
        for text in row["captions"]:
            assert reading.is_true(text, row["parts"], names), text
            assert not reading.is_true(text, twin["parts"], names), text


def test_novel_animations_are_in_their_split_only(
    lists: dict[str, Rows], animations: dict[str, dict[str, Any]]
) -> None:
    novel = {code for code, animation in animations.items() if animation["novel"]}
    assert novel
    for split, rows in lists.items():
        assert all(bool(novel & set(row["parts"])) == (split == "test_novel") for row in rows)
    assert {code for rows in lists.values() for row in rows for code in row["parts"]} == set(animations)


def test_no_clip_is_twice_in_a_split_and_hardly_any_in_two(lists: dict[str, Rows]) -> None:
    orders = {split: {tuple(row["parts"]) for row in rows} for split, rows in lists.items()}
    assert {split: len(found) for split, found in orders.items()} == SIZES
    for split in SPLITS[1:]:
        again = orders[split] & orders["train"]
        assert len(again) < 0.01 * SIZES[split]
        assert all(len(parts) == 2 for parts in again)  # there are few orders of so few


def test_every_part_of_a_clip_is_among_the_frames_of_the_configs(lists: dict[str, Rows]) -> None:
    most = max(len(row["parts"]) for rows in lists.values() for row in rows)
    for name in ("clips", "clips_full", "videoqa", "videoqa_full"):
        count = read_config(package_path("configs") / f"{name}.yaml").data.frames
        for parts in range(2, most + 1):
            frames = sample_frame_indices(FRAMES * parts, count, None)
            assert {frame // FRAMES for frame in frames} == set(range(parts)), (name, parts)


def test_a_joined_clip_decodes_to_the_frames_of_its_parts(written: Path, lists: dict[str, Rows]) -> None:
    for row in lists["val"][:12]:
        path = written / "videos" / "val" / f"{row['id']}.mp4"
        parts = [decoded(asset_path("clips") / "single" / f"{code}.mp4") for code in row["parts"]]
        assert all(part.shape == (FRAMES, 96, 96, 3) for part in parts)
        assert np.array_equal(decoded(path), np.concatenate(parts)), row["id"]
        with av.open(str(path)) as container:
            seconds = container.streams.video[0].duration * container.streams.video[0].time_base
        assert abs(float(seconds) - emoji_clips.SECONDS * len(parts)) < 0.2


def test_our_reader_takes_the_middles_of_the_parts(written: Path, lists: dict[str, Rows]) -> None:
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


def test_the_annotations_that_are_written(written: Path, lists: dict[str, Rows]) -> None:
    listed = {split: json.loads((written / f"{split}.json").read_text()) for split in SPLITS}
    train = [(row["video_id"], row["caption"]) for row in listed["train"]]
    assert train == [(clip["id"], text) for clip in lists["train"] for text in clip["captions"]]
    partners = {clip["id"]: clip["partner"] for clip in lists["train"]}
    groups = Counter((row["group"], frozenset((row["video_id"], partners[row["video_id"]]))) for row in listed["train"])
    assert len({group for group, _ in groups}) == len(groups) == SIZES["train"] // 2  # a clip and its twin each
    assert set(groups.values()) == {6}
    for split in SPLITS[1:]:
        assert [row["caption"] for row in listed[split]] == [row["captions"] for row in lists[split]]
    assert all((written / row["video"]).is_file() for rows in listed.values() for row in rows)


@pytest.mark.parametrize(
    ("name", "have"),
    [
        ("embedded:train", "embedded:captions/SPLIT"),
        ("embedded:films/train", "embedded:captions/SPLIT"),
        ("embedded:clips/tset", "there is train, val, test, test_novel$"),
        ("embedded:videoqa/vqa_train", "there is train, val, test, test_novel$"),
    ],
)
def test_unknown_names_list_the_known_ones(
    name: str, have: str, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIADAPTER_CACHE", str(written.parent))
    with pytest.raises(ConfigError, match=f"there is no .*{have}"):
        resolve_embedded(name)
