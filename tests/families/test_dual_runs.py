"""CLIP and SigLIP through the command line: train, evaluate, load; nothing to match or rerank with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_models import BUILDERS, PLACES, save_family

import uniadapter as ua
from squares import COLOURS, captions, karpathy
from test_video_commands import films
from uniadapter.app.cli import main
from uniadapter.embedded.emoji_scenes import read_scenes
from uniadapter.errors import CheckpointError

FAMILIES = ("clip", "siglip")


def write_run(folder: Path, base: Path, files: dict[str, str], **more: Any) -> Path:
    """A small run's YAML for a family without fusion."""
    config: dict[str, Any] = {
        "output": str(folder / "run"),
        "model": {"base": str(base), "max_tokens": PLACES, "adapter": {"bottleneck": 8}},
        "data": {**files, "root": str(folder), "workers": 0, "scale": [0.9, 1.0], "augment": False},
        "objective": {"matching": False},
        "train": {"epochs": 12, "batch_size": 8, "lr": 1e-2, "log_every": 1, "seed": 1, "schedule": "cosine"},
        "evaluate": {"k": 0, "batch_size": 4},
    }
    for key, value in more.items():
        config[key].update(value)
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


# Widths as at base size: CLIP's differ, SigLIP's do not.
LEARNING = [("clip", {"width": 48, "text_width": 32}, 60), ("siglip", {}, 100)]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "sizes", "epochs"), LEARNING)
def test_training_learns_and_its_folder_is_all_that_is_needed(
    tmp_path: Path, family: str, sizes: dict[str, int], epochs: int
) -> None:
    base = save_family(tmp_path / "base", family, **sizes)
    files = karpathy(tmp_path, "coco_karpathy")
    adapter = {"bottleneck": 8, "scale": 1.0}
    run = write_run(tmp_path, base, files, model={"adapter": adapter}, train={"epochs": epochs})
    assert main(["train", str(run)]) == 0
    found = losses(tmp_path / "run")
    assert sum(found[-4:]) < 0.5 * sum(found[:4]), found
    rows = {row["method"]: row for row in json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]}
    assert rows["uniadapter"]["text_to_image"]["r@1"] > rows["zero_shot"]["text_to_image"]["r@1"] + 30

    model, tokenizer = ua.load_model(base), ua.load_tokenizer(base)
    before = ua.base_hash(model)
    texts = [captions(colour)[0] for colour in COLOURS]
    with torch.no_grad():
        bare = ua.text_features(model, tokenizer, texts).feature
        adapters = ua.load_adapter(model, tmp_path / "run" / "adapter")
        assert "logit_scale" in adapters.scalars
        text = ua.text_features(model, tokenizer, texts).feature
        seen = ua.image_features(model, [tmp_path / f"{colour}.jpg" for colour in COLOURS]).feature
        with ua.disable_adapter(model):
            assert torch.equal(ua.text_features(model, tokenizer, texts).feature, bare)
    r1 = 100 * float(((text @ seen.T).argmax(1) == torch.arange(len(texts))).float().mean())
    assert r1 > 50, "what was trained is what the folder holds"
    assert ua.base_hash(model) == before
    assert main(["evaluate", str(run), "--adapter", str(tmp_path / "run" / "adapter")]) == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["full", "none"])
def test_full_fine_tuning_and_zero_shot(tmp_path: Path, family: str, method: str) -> None:
    base = save_family(tmp_path / "base", family)
    files = karpathy(tmp_path, "coco_karpathy")
    run = write_run(tmp_path, base, files, model={"method": method}, train={"epochs": 4, "lr": 1e-3})
    assert main(["train" if method == "full" else "evaluate", str(run)]) == 0
    if method == "full":
        found = losses(tmp_path / "run")
        assert found[-1] < found[0]
        trained = ua.load_model(tmp_path / "run" / "model")
        assert type(trained) is type(ua.load_model(base))
        ua.load_tokenizer(tmp_path / "run" / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_videos_are_trained_and_evaluated(tmp_path: Path, family: str) -> None:
    """With frames weighed by the text, too."""
    names = films(tmp_path, lambda number, colour: f"{number}.mp4")
    rows = [{"video": name, "caption": f"a {colour} square"} for name, colour in zip(names, COLOURS, strict=False)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    files = dict.fromkeys(("train", "val", "test"), str(file))
    for aware in (False, True):
        run = write_run(
            tmp_path,
            save_family(tmp_path / "base", family),
            files,
            model={"adapter": {"bottleneck": 8, "frame_aware": aware}},
            data={"frames": 3, "eval_frames": 3},
            train={"epochs": 8, "batch_size": 6},
        )
        assert main(["train", str(run), "--output", str(tmp_path / f"run-{aware}")]) == 0
        found = losses(tmp_path / f"run-{aware}")
        assert found[-1] < found[0]
        scores = json.loads((tmp_path / f"run-{aware}" / "metrics.json").read_text())["rows"]
        assert {"text_to_video", "video_to_text"} <= set(scores[-1])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_embedded_scenes_from_their_annotations(tmp_path: Path, family: str) -> None:
    """Loss falls, and what was trained is measured, saved, loaded and switched off."""
    said = [caption for row in read_scenes("train") for caption in row["captions"]]
    words = sorted({word for text in said for word in re.findall(r"\w+|[^\w\s]", text)})
    base = save_family(tmp_path / "base", family, words=words, places=40, image=48)
    files = {"train": "embedded:scenes/train", "test": "embedded:scenes/test"}
    run = write_run(tmp_path, base, files, model={"max_tokens": 40, "adapter": {"bottleneck": 8, "scale": 1.0}},
                    data={"root": None}, train={"epochs": 1, "max_steps": 24, "batch_size": 32, "lr": 5e-3},
                    evaluate={"batch_size": 64})  # fmt: skip
    assert main(["train", str(run)]) == 0
    found = losses(tmp_path / "run")
    assert sum(found[-4:]) < sum(found[:4])
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["zero_shot", "uniadapter"]
    model, tokenizer = ua.load_model(base), ua.load_tokenizer(base)
    bare = ua.text_features(model, tokenizer, said[:4]).feature
    ua.load_adapter(model, tmp_path / "run" / "adapter")
    assert (ua.text_features(model, tokenizer, said[:4]).feature - bare).abs().max() > 1e-3
    with ua.disable_adapter(model):
        assert torch.equal(ua.text_features(model, tokenizer, said[:4]).feature, bare)
    ua.save_adapter(model, tmp_path / "again")
    ua.remove_adapter(model)
    assert torch.equal(ua.text_features(model, tokenizer, said[:4]).feature, bare)
    ua.load_adapter(model, tmp_path / "again")


ARGUMENTS = {
    "more tokens than places": ["--model.max_tokens", str(PLACES + 1)],
    "another task": ["--task", "vqa"],
    "matching": ["--objective.matching", "true"],
    "rerank": ["--evaluate.k", "4"],
    "time": ["--model.adapter.temporal_frames", "4"],
}


def spoil(what: str, folder: Path, base: Path, files: dict[str, str]) -> list[str]:
    """Make one thing wrong; the arguments of `train` that go with it."""
    weights = base / "model.safetensors"
    if what == "no such annotations":
        Path(files["train"]).unlink()
    elif what == "corrupt picture":
        (folder / "red.jpg").write_bytes(b"no picture")
    elif what == "no tokenizer":
        (base / "tokenizer.json").unlink()
    elif what == "damaged weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "missing weights":
        state = load_file(weights)
        del state["vision_model.encoder.layers.1.mlp.fc1.weight"]
        save_file(state, weights)
    return ARGUMENTS.get(what, [])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no such annotations", "coco_karpathy_train.json"),
        ("corrupt picture", "red.jpg"),
        ("no tokenizer", "has no tokenizer"),
        ("damaged weights", "model.safetensors"),
        ("missing weights", "lacks 1 tensors"),
        ("more tokens than places", f"the base has {PLACES} positions"),
        ("another task", "task is vqa"),
        ("matching", "set objective.matching false"),
        ("rerank", "set evaluate.k 0"),
        ("time", "set model.adapter.temporal_frames 0"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str, what: str, said: str
) -> None:
    base, files = save_family(tmp_path / "base", family), karpathy(tmp_path, "coco_karpathy")
    run = write_run(tmp_path, base, files)
    arguments = spoil(what, tmp_path, base, files)
    assert main(["train", str(run), *arguments]) != 0
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in line
    assert "Traceback" not in line


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_another_family_is_refused(tmp_path: Path, family: str) -> None:
    other = BUILDERS["siglip" if family == "clip" else "clip"]()
    ua.add_adapter(other, ua.AdapterConfig(bottleneck=4))
    ua.save_adapter(other, tmp_path / "other")
    model = BUILDERS[family]()
    with pytest.raises(CheckpointError) as error:
        ua.load_adapter(model, tmp_path / "other")
    assert "\n" not in str(error.value)
    assert ua.adapter_names(model) == []
