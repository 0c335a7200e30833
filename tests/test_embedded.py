"""The embedded scenes: true captions, twins, nothing shared between splits, rendered as specified; and the base."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipForImageTextRetrieval

from uniadapter.app.parsing import read_config
from uniadapter.checkpoints.loading import load_model
from uniadapter.embedded import emoji_scenes
from uniadapter.embedded.annotations import read_specifications
from uniadapter.embedded.cached_folders import STAMP
from uniadapter.files.assets import asset_path, package_path
from uniadapter.runs.steps import evaluate_split, load_split
from uniadapter.tasks.preparing import prepare

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"train": 4000, "val": 400, "test": 500, "test_novel": 400}
SPLITS = list(SIZES)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def scenes() -> dict[str, Rows]:
    return {split: emoji_scenes.read_scenes(split) for split in SPLITS}


@pytest.fixture(scope="module")
def sprites() -> dict[str, dict[str, Any]]:
    return json.loads((asset_path("scenes") / "sprites.json").read_text())["sprites"]


@pytest.fixture(scope="module")
def names() -> dict[str, list[str]]:
    return json.loads((asset_path("scenes") / "names.json").read_text())


@pytest.fixture(scope="module")
def reading() -> Any:
    """The independent reader of captions, which is in a checkout but not in the wheel."""
    sys.path.insert(0, str(ROOT))
    try:
        return pytest.importorskip("world.tasks.reading")
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emoji_scenes.prepare_scenes(tmp_path_factory.mktemp("rendered"))


def shown(scene: dict[str, Any]) -> list[str]:
    return [code for code, *_ in scene["objects"]]


@pytest.mark.parametrize("folder", ["scenes", "drawn", "clips"])
def test_the_committed_hashes_are_those_of_all_files_that_tasks_are_made_of(folder: str) -> None:
    lines = (asset_path(folder) / "SPLIT_SHA256").read_text().splitlines()
    stated = {name: digest for digest, name in map(str.split, lines)}
    found = {str(path.relative_to(asset_path(folder))) for path in asset_path(folder).rglob("*") if path.is_file()}
    about = {"README.md", "SPLIT_SHA256", "leakage.json"}
    assert set(stated) == {name for name in found - about if not name.startswith("licences/")}
    for name, digest in stated.items():
        assert hashlib.sha256((asset_path(folder) / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("split", SPLITS)
def test_sizes_and_distinct_captions(split: str, scenes: dict[str, Rows]) -> None:
    rows = scenes[split]
    captions = [text for row in rows for text in row["captions"]]
    assert len(rows) == SIZES[split]
    assert len(captions) == len(set(captions)) == 3 * len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(len(row["references"]) == 5 for row in rows)


@pytest.mark.parametrize("split", SPLITS)
def test_emoji_lie_inside_and_apart(split: str, scenes: dict[str, Rows]) -> None:
    for row in scenes[split]:
        boxes = [(x - s // 2, y - s // 2, x - s // 2 + s, y - s // 2 + s) for _, x, y, s in row["objects"]]
        assert all(0 <= v <= emoji_scenes.SIZE for box in boxes for v in box), row["id"]
        assert len(set(shown(row))) == len(boxes)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                assert min(width, height) <= 4, row["id"]  # corners may touch


@pytest.mark.parametrize("split", SPLITS)
def test_texts_are_true_and_false_of_the_twin(
    split: str, scenes: dict[str, Rows], names: dict[str, list[str]], reading: Any
) -> None:
    by_id = {row["id"]: row for row in scenes[split]}
    for row in scenes[split][: 1000 if split == "train" else None]:
        for text in (*row["captions"], *row["references"]):
            assert reading.is_true(text, row, names), (row["id"], text)
            if row["partner"] is not None:
                assert not reading.is_true(text, by_id[row["partner"]], names), (row["id"], text)


def test_the_drawn_scenes_are_said_as_pre_training_says(
    names: dict[str, list[str]], reading: Any, sprites: dict[str, dict[str, Any]]
) -> None:
    rows = {row["id"]: row for row in read_specifications("drawn", "test")}
    shown_there = {code for row in rows.values() for code in shown(row)}
    assert not any(sprites[code]["novel"] for code in shown_there)
    assert shown_there == set(json.loads((asset_path("drawn") / "sprites.json").read_text())["sprites"])
    for row in rows.values():
        for text in (*row["captions"], *row["references"]):
            assert reading.is_true(text, row, names), (row["id"], text)
            assert not reading.is_true(text, rows[row["partner"]], names), (row["id"], text)
        assert not any(" its " in text or text.endswith(" it") for text in row["captions"]), row


def test_the_drawn_scenes_are_rendered(tmp_path: Path) -> None:
    folder = emoji_scenes.prepare_scenes(tmp_path, name="drawn")
    assert folder == tmp_path / "drawn"
    assert len(list((folder / "images" / "test").glob("*.png"))) == len(read(folder, "test")) == 200
    assert [len(read(folder, f"{name}test")) for name in ("captions_", "vqa_")] == [200, 969]
    assert not (folder / "train.json").exists()


@pytest.mark.parametrize("split", SPLITS)
def test_twins_differ_only_in_which_two_things_have_changed_places(split: str, scenes: dict[str, Rows]) -> None:
    by_id = {row["id"]: row for row in scenes[split]}
    twins = [row for row in scenes[split] if row["partner"] is not None]
    assert len(twins) > 0.9 * len(by_id)
    for row in twins:
        other = by_id[row["partner"]]
        assert (other["partner"], other["ground"]) == (row["id"], row["ground"])
        assert sorted(shown(row)) == sorted(shown(other))
        assert sum(a != b for a, b in zip(shown(row), shown(other), strict=True)) == 2
        for (_, x, y, size), (_, u, v, its) in zip(row["objects"], other["objects"], strict=True):
            assert size == its
            assert max(abs(x - u), abs(y - v)) <= 6


def test_no_two_concepts_meet_in_two_scenes_of_a_split_but_twins(scenes: dict[str, Rows]) -> None:
    """So a caption that names two things is true of no scene but its own and perhaps the twin."""
    for split, rows in scenes.items():
        first = [row for row in rows if row["partner"] is None or row["id"] < row["partner"]]
        met = Counter(pair for row in first for pair in combinations(sorted(shown(row)), 2))
        assert max(met.values()) == 1, split


def test_what_is_novel_and_what_is_said_is_not_in_training(
    scenes: dict[str, Rows], sprites: dict[str, dict[str, Any]]
) -> None:
    novel = {code for code, sprite in sprites.items() if sprite["novel"]}
    for split, rows in scenes.items():
        assert all(bool(novel & set(shown(row))) == (split == "test_novel") for row in rows)
        used = {code for row in rows for code in shown(row)}
        assert used >= (novel if split == "test_novel" else set(sprites) - novel)
    said = {text for row in scenes["train"] for text in row["captions"]}
    for split in SPLITS[1:]:
        again = [text for row in scenes[split] for text in row["captions"] if text in said]
        assert len(again) < 0.01 * 3 * len(scenes[split])  # two things alone may meet in two splits


def test_no_name_is_shared_by_two_concepts(names: dict[str, list[str]], sprites: dict[str, dict[str, Any]]) -> None:
    everything = [name for options in names.values() for name in options]
    assert len(everything) == len(set(everything))
    assert {code: options[0] for code, options in names.items()} == {c: s["label"] for c, s in sprites.items()}


def read(folder: Path, name: str) -> Rows:
    return json.loads((folder / f"{name}.json").read_text())


def test_the_annotations_that_are_written(rendered: Path, scenes: dict[str, Rows]) -> None:
    for prefix, field, count in (("", "captions", 3), ("captions_", "references", 5)):
        train = read(rendered, f"{prefix}train")
        assert [row["caption"] for row in train] == [text for scene in scenes["train"] for text in scene[field]]
        assert all(row.keys() == {"image", "caption", "image_id", "group"} for row in train)
        assert len(train) == count * SIZES["train"]
        for split in SPLITS[1:]:
            rows = read(rendered, f"{prefix}{split}")
            assert [row["caption"] for row in rows] == [scene[field] for scene in scenes[split]]
            assert all(row.keys() == {"image", "caption", "group"} for row in rows)
    listed = {row["image"] for split in SPLITS for row in read(rendered, split)}
    found = {str(p.relative_to(rendered)) for p in (rendered / "images").rglob("*.png")}
    assert listed == found
    assert len(found) == sum(SIZES.values())
    with Image.open(rendered / min(found)) as picture:
        assert (picture.size, picture.mode) == ((96, 96), "RGB")


@pytest.mark.parametrize("name", ["train", "captions_train", "vqa_train", "test", "captions_test", "vqa_test"])
def test_a_group_is_a_scene_and_its_twin(name: str, rendered: Path, scenes: dict[str, Rows]) -> None:
    partners = {scene["id"]: scene["partner"] for scene in scenes[name.split("_")[-1]]}
    members: dict[str, set[str]] = {}
    for row in read(rendered, name):
        members.setdefault(row["group"], set()).add(Path(row["image"]).stem)
    assert all(ids == {one, partners[one] or one} for ids in members.values() for one in ids)
    assert sum(len(ids) for ids in members.values()) == len(partners)


def test_no_picture_is_in_two_splits(rendered: Path) -> None:
    hashes = [hashlib.sha256(path.read_bytes()).digest() for path in (rendered / "images").rglob("*.png")]
    assert len(hashes) == len(set(hashes))


def test_the_pictures_show_the_objects_where_the_specification_says(rendered: Path, scenes: dict[str, Rows]) -> None:
    for scene in scenes["val"][:40]:
        with Image.open(rendered / "images" / "val" / f"{scene['id']}.png") as picture:
            pixels = np.asarray(picture).astype(int)
        plain = emoji_scenes.gradient(*scene["background"])
        changed = np.abs(pixels - plain).max(axis=2) > 24
        outside = changed.copy()
        for _, x, y, size in scene["objects"]:
            top, left = y - size // 2, x - size // 2
            assert changed[top : top + size, left : left + size].mean() > 0.05, scene["id"]
            outside[top : top + size, left : left + size] = False
        assert not outside.any(), scene["id"]


def test_prepared_scenes_are_kept_and_an_outdated_folder_is_replaced(tmp_path: Path, rendered: Path) -> None:
    before = (rendered / "val.json").stat().st_mtime_ns
    assert emoji_scenes.prepare_scenes(rendered.parent) == rendered
    assert (rendered / "val.json").stat().st_mtime_ns == before
    old = tmp_path / "scenes"
    old.mkdir()
    (old / STAMP).write_text("something else")
    (old / "left over").write_text("")
    assert emoji_scenes.prepare_scenes(tmp_path) == old
    assert not (old / "left over").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scenes"]
    first = sorted((rendered / "images" / "test").iterdir())[7]
    assert first.read_bytes() == (old / "images" / "test" / first.name).read_bytes()


def backbone() -> Path:
    folder = asset_path("backbone")
    if not (folder / "model.safetensors").exists():
        pytest.skip("the backbone is not in this checkout")
    return folder


@pytest.mark.parametrize("cls", [BlipForImageTextRetrieval, BlipForConditionalGeneration])
def test_the_backbone_loads_whole_in_both_classes(cls: Any) -> None:
    model, info = cls.from_pretrained(backbone(), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.vision_config.layer_norm_eps == 1e-6
    assert model.config.text_config.label_smoothing == 0.1


def test_the_backbones_tokenizer_has_blips_special_tokens(scenes: dict[str, Rows]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(backbone())
    config = BlipForImageTextRetrieval.config_class.from_pretrained(backbone())
    ids = tokenizer.convert_tokens_to_ids
    assert config.text_config.bos_token_id == ids("[DEC]")
    assert config.text_config.sep_token_id == config.text_config.eos_token_id == ids("[SEP]")
    assert config.text_config.pad_token_id == tokenizer.pad_token_id
    assert ids("[ENC]") not in (tokenizer.unk_token_id, None)
    assert len(tokenizer) == config.text_config.vocab_size
    encoded = tokenizer("a grinning cat above a pizza")["input_ids"]
    assert encoded[0] == tokenizer.cls_token_id
    assert encoded[-1] == tokenizer.sep_token_id
    for split in SPLITS:
        texts = [text for row in scenes[split] for text in (*row["captions"], *row["references"])]
        ids = tokenizer(texts)["input_ids"]
        assert max(map(len, ids)) <= config.text_config.max_position_embeddings
        assert not any(tokenizer.unk_token_id in row for row in ids)


def test_the_backbone_tells_words_about_a_picture(rendered: Path) -> None:
    folder = backbone()
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        out = model.generate(pixel_values=torch.zeros(1, 3, 96, 96), max_new_tokens=8)
    assert tokenizer.decode(out[0], skip_special_tokens=True).strip()


def evaluated(name: str, files: dict[str, str], **evaluate: Any) -> dict[str, Any]:
    """Scores on "val" of the base as it is, by a config of the package with other files and evaluation settings."""
    config = read_config(package_path("configs") / f"{name}.yaml")
    changes = {"data": files, "model": {"method": "none"}, "evaluate": evaluate}
    for part, values in changes.items():
        config = replace(config, **{part: replace(getattr(config, part), **values)})
    return evaluate_split(prepare(config), load_split(config, "val"), config).scores


def test_the_base_fuses(
    rendered: Path, tmp_path: Path, scenes: dict[str, Rows], sprites: dict[str, dict[str, Any]]
) -> None:
    """Its matching tells scenes from their twins in a style that it has never seen, which similarity cannot."""
    rows = []
    for scene in scenes["val"]:
        left, *others = sorted(scene["objects"], key=lambda thing: thing[1])
        if len(others) == 1 and others[0][1] - left[1] >= 40:
            one, other = (sprites[code]["label"] for code in (left[0], others[0][0]))
            picture = str(rendered / "images" / "val" / f"{scene['id']}.png")
            rows.append({"image": picture, "caption": f"the {one} to the left of the {other}"})
    assert len(rows) > 40
    (tmp_path / "val.json").write_text(json.dumps(rows))
    files = {"val": str(tmp_path / "val.json")}
    similar, reranked = (evaluated("scenes", files, k=k)["text_to_image"]["r@1"] for k in (0, 16))
    assert reranked > similar + 10


def test_the_base_answers_about_a_style_that_it_has_never_seen(rendered: Path, tmp_path: Path) -> None:
    """More right than the most frequent answer of each type."""
    rows = [{**row, "image": str(rendered / row["image"])} for row in read(rendered, "vqa_val")[:300]]
    (tmp_path / "val.json").write_text(json.dumps(rows))
    files = {"train": str(rendered / "vqa_train.json"), "val": str(tmp_path / "val.json")}
    scores = evaluated("vqa", files, k=16)
    right, majority = scores["by_answer_type"], scores["majority_by_answer_type"]
    for kind in ("how many", "is there"):
        assert right[kind] > majority[kind] + 10


def test_the_three_models_of_the_base_share_what_they_have_in_common() -> None:
    question, retrieval = (load_model("embedded", task).state_dict() for task in ("vqa", "retrieval"))
    shared = question.keys() & retrieval.keys()
    assert {name.split(".")[0] for name in shared} == {"vision_model", "text_encoder"}
    assert all(torch.equal(question[name], retrieval[name]) for name in shared)


def test_all_assets_stay_below_25_megabytes() -> None:
    assert sum(p.stat().st_size for p in package_path("assets").rglob("*") if p.is_file()) < 25e6
