"""The adapters of this package: their figures without training, and a base that loses nothing by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import uniadapter as ua
from uniadapter.app.cli import main
from uniadapter.checkpoints.adapter_files import read_adapter_config
from uniadapter.checkpoints.embedded_adapters import embedded_adapters
from uniadapter.checkpoints.locating import locate_adapter
from uniadapter.embedded import resolve_embedded
from uniadapter.errors import CheckpointError
from uniadapter.files.assets import package_path

COMPARISONS = {"clips": "video"}  # of an adapter, where the name is another
ASKED = ["is there a dog?", "how many things are there?"]
SAID = ["a dog to the left of a cat", "a cat with a dog to its left"]


def measured(name: str) -> dict[str, Any]:
    """The row of seed 0 on the novel set in the comparison's results."""
    file = package_path("results") / "compare" / f"{COMPARISONS.get(name, name)}.json"
    rows = [
        row for row in json.loads(file.read_text())["rows"]
        if (row["method"], row.get("setting"), row["seed"], row.get("test_set")) == ("uniadapter", None, 0, "novel")
    ]  # fmt: skip
    assert len(rows) == 1
    return rows[0]


def scores(row: dict[str, Any]) -> dict[str, float]:
    """The figures in 0 to 100 or above, by name."""
    nested = {
        f"{key} {name}": value for key, part in row.items() if isinstance(part, dict) for name, value in part.items()
    }
    found = {**nested, **row}
    return {name: value for name, value in found.items() if name.split(" ")[-1] in ("r@1", "r@10", "accuracy", "cider")}


@pytest.mark.slow
@pytest.mark.parametrize("name", embedded_adapters())
def test_an_adapter_has_the_figures_of_the_table(name: str, tmp_path: Path) -> None:
    if name == "caption":
        pytest.importorskip("pycocoevalcap")
    try:
        stated = scores(measured(name))
    except FileNotFoundError:
        pytest.skip("the results come with the repository alone")
    command = ["evaluate", name, "--adapter", f"embedded:{name}", "--split", "novel", "--output", str(tmp_path)]
    assert main(command) == 0
    (row,) = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    found = scores(row)
    assert len(stated) >= 1
    assert found.keys() == stated.keys()
    for (
        key,
        value,
    ) in stated.items():  # equal to the digit where they were measured; sums are rounded otherwise elsewhere
        assert found[key] == pytest.approx(value, abs=1.0 if key == "cider" else 0.5), key


def shown(task: str, model: Any, tokenizer: Any, pictures: list[str], frames: int) -> list[Any]:
    """What a model says of pictures."""
    if task == "vqa":
        answers = ["yes", "no", "two", "three"]
        return [ua.ask(model, tokenizer, one, ASKED, answers) for one in pictures]
    if task == "caption":
        return ua.caption(model, tokenizer, pictures)
    images = ua.image_features(model, pictures, frames)
    texts = ua.text_features(model, tokenizer, SAID)
    return [images.feature, texts.feature, ua.pair_scores(model, tokenizer, images, texts)]


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal to the bit."""
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("name", embedded_adapters())
def test_the_base_has_forgotten_nothing_while_the_adapter_is_disabled(name: str) -> None:
    listed = json.loads(Path(resolve_embedded("embedded:drawn/test")).read_text())[:6]
    folder = Path(resolve_embedded("embedded:drawn/test")).parent
    pictures = [str(folder / row["image"]) for row in listed]
    trained = ua.from_pretrained(f"embedded:{name}")
    frames = 1  # a picture is a video of one frame
    base = ua.load_model("embedded", trained.task)
    base.requires_grad_(False)  # as it is below an adapter: on some processors frozen layers are computed otherwise
    before = shown(trained.task, base, trained.tokenizer, pictures, frames)
    adapted = shown(trained.task, trained.model, trained.tokenizer, pictures, frames)
    with ua.disable_adapter(trained.model):
        after = shown(trained.task, trained.model, trained.tokenizer, pictures, frames)
    assert all(map(same, before, after))
    assert not all(map(same, before, adapted))


def test_names() -> None:
    assert locate_adapter("some/folder") == Path("some/folder")
    assert {"scenes", "clips", "vqa", "videoqa", "caption"} == set(embedded_adapters())
    for use in (ua.from_pretrained, read_adapter_config, locate_adapter):
        with pytest.raises(CheckpointError, match=r"no adapter 'embedded:scene' .* there is embedded:caption"):
            use("embedded:scene")
    with pytest.raises(CheckpointError, match="no adapter 'embedded:no'"):
        ua.load_adapter(ua.load_model("embedded"), "embedded:no")


def test_asking_with_an_adapter_of_this_package(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(resolve_embedded("embedded:vqa/test")).parent
    question = json.loads((folder / "vqa_test.json").read_text())[0]
    command = ["ask", str(folder / question["image"]), question["question"], "--adapter", "embedded:vqa"]
    assert main(command) == 0
    assert "%" in capsys.readouterr().out
    assert main([*command[:-1], "embedded:vqb"]) == 2
    assert "there is embedded:caption" in capsys.readouterr().err
