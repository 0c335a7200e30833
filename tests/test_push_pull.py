"""Adapters copied elsewhere and back: whole or not at all, with a card whose lines run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import uniadapter as ua
from squares import karpathy
from test_commands import base, write_run  # noqa: F401 - a fixture
from uniadapter.app.cli import main
from uniadapter.checkpoints.sharing import pull_folder, push_folder
from uniadapter.errors import CheckpointError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:  # noqa: F811
    """A run folder."""
    folder = tmp_path_factory.mktemp("run")
    more: dict[str, Any] = {"objective": {"queue_size": 0, "momentum": 0, "alpha": 0}}
    config = write_run(folder, base, karpathy(folder, "tiny"), train={"epochs": 1, "batch_size": 4}, **more)
    assert main(["train", str(config), "--output", str(folder / "out")]) == 0
    return folder / "out"


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["memory", "file", "folder"])
def test_there_and_back(tmp_path: Path, run: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = {"memory": "memory://shared/mine", "file": f"file://{tmp_path}/store/mine", "folder": str(tmp_path / "f")}[
        kind
    ]
    assert main(["push", str(run), target, "--licence", "apache-2.0"]) == 0
    assert f"ua.from_pretrained('{target}')" in capsys.readouterr().out
    assert main(["pull", target, str(tmp_path / "got")]) == 0
    assert "retrieval, r = " in capsys.readouterr().out
    assert weights(tmp_path / "got") == weights(run / "adapter")
    one, other = ua.from_pretrained(run), ua.from_pretrained(target)
    picture = Image.linear_gradient("L").convert("RGB")
    assert torch.equal(ua.image_features(one.model, picture).feature, ua.image_features(other.model, picture).feature)
    card = (tmp_path / "got/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["library_name"]) == ("apache-2.0", "uniadapter")
    assert "## Figures" in card
    assert re.search(r"metrics in 0 to 100, seed \d+", card)
    assert "| UniAdapter |" in card
    assert "- data, train: tiny_train" in card
    assert str(run.parent) not in card.replace(one.base, "")


def test_the_cards_lines_run(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    push_folder(run / "adapter", "memory://plain")
    assert main(["push", str(run), "memory://card"]) == 0
    card = (pull_folder("memory://card", tmp_path / "got") / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert 'ua.load_adapter(model, "memory://card")' in code
    Image.linear_gradient("L").convert("RGB").save("picture.jpg")
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_an_adapter_from_elsewhere_in_the_commands(run: Path, tmp_path: Path) -> None:
    push_folder(run / "adapter", "memory://commands")
    files = karpathy(tmp_path, "tiny")
    command = [
        "evaluate",
        str(run / "config.yaml"),
        "--adapter",
        "memory://commands",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--data.test", files["test"], "--data.root", str(tmp_path)]) == 0


def test_a_new_version_is_pulled(run: Path, tmp_path: Path) -> None:
    push_folder(run / "adapter", "memory://changing")
    before = ua.from_pretrained("memory://changing")
    shutil.copytree(run / "adapter", tmp_path / "changed")
    loaded = ua.from_pretrained(run)
    with torch.no_grad():
        next(iter(ua.adapter_set(loaded.model).parameters())).add_(1)
    ua.save_adapter(loaded.model, tmp_path / "changed", base=loaded.base)
    push_folder(tmp_path / "changed", "memory://changing")
    after = ua.from_pretrained("memory://changing")
    one, other = (next(iter(ua.adapter_set(x.model).parameters())) for x in (before, after))
    assert not torch.equal(one, other)


def test_half_a_copy_is_no_adapter(run: Path, tmp_path: Path) -> None:
    import fsspec

    push_folder(run / "adapter", "memory://half")
    store = fsspec.filesystem("memory")
    store.rm("/half/uniadapter_config.json")
    with pytest.raises(CheckpointError, match=r"memory://half: no adapter there, it has no uniadapter_config.json"):
        pull_folder("memory://half", tmp_path / "got")
    assert not (tmp_path / "got").exists()
    push_folder(run / "adapter", "memory://half")
    store.pipe_file("/half/adapter_model.safetensors", weights(run / "adapter")[:-100])
    with pytest.raises(CheckpointError):
        pull_folder("memory://half", tmp_path / "got")
    with pytest.raises(CheckpointError):
        ua.from_pretrained("memory://half")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["push", "nowhere", "memory://x"], "nowhere: no adapter and no run with one in it"),
        (["pull", "memory://nowhere", "got"], "no adapter there"),
        (["pull", "nowhere", "got"], "no adapter there"),
        (["pull", "nonsense://x", "got"], "nonsense"),
        (["pull", "embedded:nope", "got"], "there is embedded:caption"),
    ],
)
def test_wrong_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "got").exists()


def test_the_hub_out_of_reach(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniadapter.checkpoints.sharing.hub_in_reach", lambda: False)
    with pytest.raises(CheckpointError, match="hf://me/mine: the hub cannot be reached"):
        push_folder(run / "adapter", "hf://me/mine")
    with pytest.raises(CheckpointError, match="hf://me/mine: the hub cannot be reached, and its cache has no"):
        pull_folder("hf://me/mine", tmp_path / "got")


def test_what_is_sent_to_the_hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls alone: that the hub does what they say is not verified here."""
    import huggingface_hub

    sent: dict[str, Any] = {}

    class Api:
        def create_repo(self, name: str, **more: Any) -> None:
            sent["repo"] = (name, more)

        def upload_folder(self, repo_id: str, folder_path: Path, **more: Any) -> None:
            sent["files"] = sorted(file.name for file in Path(folder_path).iterdir())

    monkeypatch.setattr("uniadapter.checkpoints.sharing.hub_in_reach", lambda: True)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert main(["push", str(run), "hf://me/mine", "--private"]) == 0
    assert sent["repo"] == ("me/mine", {"private": True, "exist_ok": True})
    assert sent["files"] == ["README.md", "adapter_model.safetensors", "uniadapter_config.json"]
