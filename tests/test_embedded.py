"""The embedded scenes: correct captions, disjoint families, committed hashes, rendered layouts; and the backbone."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

from uniadapter.app.parsing import read_config
from uniadapter.app.runs import evaluate_split, load_split
from uniadapter.checkpoints.loading import load_model
from uniadapter.embedded import emoji_scenes as embedded
from uniadapter.embedded.cached_folders import STAMP
from uniadapter.files.assets import asset_path, package_path
from uniadapter.tasks.preparing import prepare

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"train": 4000, "val": 400, "test": 500, "test_novel": 400}
SPLITS = list(SIZES)


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[dict[str, Any]]]:
    return {split: embedded.read_specifications(split) for split in SPLITS}


@pytest.fixture(scope="module")
def names() -> dict[str, list[str]]:
    return json.loads((asset_path("scenes") / "names.json").read_text())


@pytest.fixture(scope="module")
def check() -> Any:
    """The independent reader of captions, which is in a checkout but not in the wheel."""
    sys.path.insert(0, str(ROOT))
    try:
        return pytest.importorskip("world.check")
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded.prepare_scenes(tmp_path_factory.mktemp("rendered"))


def points(scene: dict[str, Any]) -> dict[str, tuple[float, float]]:
    return {code: (x, y) for code, x, y, _ in scene["objects"]}


def own_names(scene: dict[str, Any], names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {code: names[code] for code, *_ in scene["objects"]}


def test_the_committed_hashes_are_those_of_the_files() -> None:
    lines = (asset_path("scenes") / "SPLIT_SHA256").read_text().split("\n")
    stated = {name: digest for digest, name in (line.split() for line in lines if line)}
    assert {f"{split}.jsonl" for split in SPLITS} | {"sprites.webp"} <= set(stated)
    for name, digest in stated.items():
        assert hashlib.sha256((asset_path("scenes") / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("split", SPLITS)
def test_sizes_and_distinct_captions(split: str, scenes: dict[str, list[dict[str, Any]]]) -> None:
    rows = scenes[split]
    captions = [text for row in rows for text in row["captions"]]
    assert len(rows) == SIZES[split]
    assert len(captions) == len(set(captions)) == 3 * len(rows)
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("split", SPLITS)
def test_emoji_lie_inside_and_apart(split: str, scenes: dict[str, list[dict[str, Any]]]) -> None:
    for row in scenes[split]:
        boxes = [(x - s // 2, y - s // 2, x - s // 2 + s, y - s // 2 + s) for _, x, y, s in row["objects"]]
        assert all(0 <= v <= embedded.SIZE for box in boxes for v in box), row["id"]
        assert len({code for code, *_ in row["objects"]}) == len(boxes)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                assert min(width, height) <= 4, row["id"]  # corners may touch


@pytest.mark.parametrize("split", SPLITS)
def test_every_caption_is_true_and_false_of_the_twin(
    split: str, scenes: dict[str, list[dict[str, Any]]], names: dict[str, list[str]], check: Any
) -> None:
    by_id = {row["id"]: row for row in scenes[split]}
    twins = 0
    for row in by_id.values():
        for text in row["captions"]:
            assert check.is_true(text, points(row), own_names(row, names)), (row["id"], text)
            if row["partner"] is not None:
                twins += 1
                assert not check.is_true(text, points(by_id[row["partner"]]), own_names(row, names)), text
    assert twins > 0.3 * 3 * len(by_id)


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_caption_is_true_of_another_scene(
    split: str, scenes: dict[str, list[dict[str, Any]]], names: dict[str, list[str]], check: Any
) -> None:
    rows = scenes[split]
    for row in rows:
        for text in row["captions"]:
            _, named = check.skeleton_of(text, own_names(row, names))
            assert len(named) >= 2
            rivals = [r for r in rows if r is not row and set(named) <= set(points(r))]
            assert {r["id"] for r in rivals} <= {row["partner"]}


@pytest.mark.parametrize(
    ("caption", "truth"),
    [
        ("an owl to the left of a pizza", True),
        ("an owl to the right of a pizza", False),
        ("a pizza with the owl on its left", True),
        ("owl above pizza", False),
        ("pizza on the right, owl on the left", True),
        ("pizza on the left and owl on the right", False),
    ],
)
def test_the_reader_tells_true_from_false(check: Any, caption: str, truth: bool) -> None:
    objects = {"A": (20.0, 40.0), "B": (70.0, 50.0)}
    assert check.is_true(caption, objects, {"A": ["owl"], "B": ["pizza"]}) is truth


def test_the_reader_refuses_what_it_cannot_read(check: Any) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        check.is_true("an owl near a pizza", {"A": (1, 1), "B": (9, 9)}, {"A": ["owl"], "B": ["pizza"]})


def test_families_are_of_one_split_only(scenes: dict[str, list[dict[str, Any]]]) -> None:
    sprites = json.loads((asset_path("scenes") / "sprites.json").read_text())["sprites"]
    families = {
        split: {sprites[code]["family"] for row in rows for code, *_ in row["objects"]}
        for split, rows in scenes.items()
    }
    for i, one in enumerate(SPLITS):
        for other in SPLITS[:i]:
            assert not families[one] & families[other], (one, other)
    for split, rows in scenes.items():
        kinds = {sprites[code]["split"] for row in rows for code, *_ in row["objects"]}
        assert kinds == {"novel" if split == "test_novel" else split}
    assert set(sprites) == {code for rows in scenes.values() for row in rows for code, *_ in row["objects"]}


def test_no_name_is_shared_by_two_concepts(names: dict[str, list[str]]) -> None:
    everything = [name for options in names.values() for name in options]
    assert len(everything) == len(set(everything))


def test_prepare_scenes_writes_the_karpathy_layouts(rendered: Path, scenes: dict[str, list[dict[str, Any]]]) -> None:
    train = json.loads((rendered / "train.json").read_text())
    assert len(train) == 12000
    assert set(train[0]) == {"image", "caption", "image_id"}
    assert isinstance(train[0]["caption"], str)
    for split in SPLITS[1:]:
        rows = json.loads((rendered / f"{split}.json").read_text())
        assert [row["caption"] for row in rows] == [scene["captions"] for scene in scenes[split]]
    listed = {row["image"] for split in SPLITS for row in json.loads((rendered / f"{split}.json").read_text())}
    found = {str(p.relative_to(rendered)) for p in (rendered / "images").rglob("*.png")}
    assert listed == found
    assert len(found) == sum(SIZES.values())
    with Image.open(rendered / train[0]["image"]) as picture:
        assert (picture.size, picture.mode) == ((96, 96), "RGB")


def test_the_pictures_show_the_objects_where_the_specification_says(
    rendered: Path, scenes: dict[str, list[dict[str, Any]]]
) -> None:
    for scene in scenes["val"][:40]:
        with Image.open(rendered / "images" / "val" / f"{scene['id']}.png") as picture:
            pixels = np.asarray(picture).astype(int)
        plain = embedded.gradient(*scene["background"])
        changed = np.abs(pixels - plain).max(axis=2) > 24
        outside = changed.copy()
        for _, x, y, size in scene["objects"]:
            top, left = y - size // 2, x - size // 2
            assert changed[top : top + size, left : left + size].mean() > 0.05, scene["id"]
            outside[top : top + size, left : left + size] = False
        assert not outside.any(), scene["id"]


def test_prepared_scenes_are_kept_and_an_outdated_folder_is_replaced(tmp_path: Path, rendered: Path) -> None:
    before = (rendered / "val.json").stat().st_mtime_ns
    assert embedded.prepare_scenes(rendered.parent) == rendered
    assert (rendered / "val.json").stat().st_mtime_ns == before
    old = tmp_path / "scenes"
    old.mkdir()
    (old / STAMP).write_text("something else")
    (old / "left over").write_text("")
    assert embedded.prepare_scenes(tmp_path) == old
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


def test_the_backbones_tokenizer_has_blips_special_tokens(scenes: dict[str, list[dict[str, Any]]]) -> None:
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
    texts = [text for row in scenes["test"] for text in row["captions"]]
    longest = max(len(row) for row in tokenizer(texts)["input_ids"])
    assert longest <= config.text_config.max_position_embeddings
    assert not any(tokenizer.unk_token_id in row for row in tokenizer(texts)["input_ids"])


def test_the_backbone_tells_words_about_a_picture(rendered: Path) -> None:
    folder = backbone()
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        out = model.generate(pixel_values=torch.zeros(1, 3, 96, 96), max_new_tokens=8)
    assert tokenizer.decode(out[0], skip_special_tokens=True).strip()


def test_questions_are_read_by_an_encoder_of_their_own() -> None:
    """It is put into the question model alone; its self-attention and embeddings are the text encoder's."""
    own = load_file(backbone() / "question_encoder.safetensors")
    model, plain = load_model("embedded", "vqa"), BlipForQuestionAnswering.from_pretrained(backbone())
    there, before = model.state_dict(), plain.state_dict()
    assert set(own) < set(before)
    assert all(torch.equal(there[name], own.get(name, before[name]).float()) for name in before)
    assert {name.split(".")[4] for name in own} == {"crossattention", "intermediate", "output"}
    retrieval = load_model("embedded").state_dict()
    assert all(torch.equal(retrieval[name], before[name]) for name in own)


def test_the_backbone_answers_about_the_style_it_was_taught_in(rendered: Path) -> None:
    """More right than the most frequent answer of each type, on scenes in a style that it has never seen."""
    files = {split: str(rendered / f"vqa_{split}.json") for split in ("train", "val")}
    config = read_config(package_path("configs") / "vqa.yaml")
    config = replace(config, data=replace(config.data, **files), model=replace(config.model, method="none"))
    scores = evaluate_split(prepare(config), load_split(config, "val"), config).scores
    assert scores["by_answer_type"]["how many"] > scores["majority_by_answer_type"]["how many"] + 5


def test_all_assets_stay_below_25_megabytes() -> None:
    assert sum(p.stat().st_size for p in package_path("assets").rglob("*") if p.is_file()) < 25e6


def test_assets_stay_small() -> None:
    size = sum(p.stat().st_size for p in asset_path("scenes").rglob("*") if p.is_file())
    assert size < 4.5e6
    assert (asset_path("scenes") / "sprites.webp").stat().st_size < 2.6e6
