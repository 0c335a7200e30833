"""`train`, `evaluate` and `convert` on real files in the layouts that circulate, through the command line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from squares import COLOURS, karpathy, save_base, save_pictures
from uniadapter.app.cli import main


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "tiny-blip")


def write_run(folder: Path, base: Path, files: dict[str, str], **more: object) -> Path:
    """A small run's YAML."""
    config = {
        "output": str(folder / "run"),
        "model": {"base": str(base), "adapter": {"bottleneck": 8, "key_value": 4}},
        "data": {**files, "root": str(folder), "workers": 0},
        "objective": {"queue_size": 16},
        "train": {"epochs": 3, "batch_size": 5, "lr": 5e-3, "log_every": 2, "seed": 1},
        "evaluate": {"k": 4, "batch_size": 4, "block": 16},
    }
    for key, value in more.items():
        config[key].update(value)  # type: ignore[attr-defined]
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.mark.parametrize(("prefix", "inside"), [("coco_karpathy", "val2014"), ("flickr30k", "flickr30k-images")])
def test_karpathy_files_through_train_and_evaluate(tmp_path: Path, base: Path, prefix: str, inside: str) -> None:
    files = karpathy(tmp_path, prefix, inside)
    run = write_run(tmp_path, base, files)
    assert main(["train", str(run)]) == 0
    out = tmp_path / "run"
    metrics = json.loads((out / "metrics.json").read_text())
    rows = {row["method"]: row for row in metrics["rows"]}
    assert set(rows) == {"zero_shot", "uniadapter"}
    for row in rows.values():
        for direction in ("text_to_image", "image_to_text"):
            for key in ("r@1", "r@5", "r@10", "median_rank", "mean_rank"):
                assert {key, f"{key}_itc"} <= set(row[direction])
    assert rows["uniadapter"]["checkpoint_bytes"] == (out / "adapter/adapter_model.safetensors").stat().st_size
    assert rows["uniadapter"]["trainable_percent"] > rows["uniadapter"]["adapter_percent"] > 0
    assert rows["zero_shot"]["trainable_parameters"] == 0
    for name in ("config.yaml", "train.log", "history.jsonl", "report.html", "curves.png", "checkpoint.pt"):
        assert (out / name).stat().st_size > 0, name
    again = ["--output", str(tmp_path / "again")]
    assert main(["evaluate", str(run), "--adapter", str(out / "adapter"), *again]) == 0
    measured = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    assert measured["text_to_image"] == rows["uniadapter"]["text_to_image"]
    bare = ["--output", str(tmp_path / "bare")]
    assert main(["evaluate", str(run), *bare]) == 0
    measured = json.loads((tmp_path / "bare/metrics.json").read_text())["rows"][0]
    assert measured["method"] == "zero_shot"
    assert measured["image_to_text"] == rows["zero_shot"]["image_to_text"]


NEW_NAMES = dict(zip(COLOURS, ["dog", "cat", "car", "tree", "star", "moon", "fish", "cake"], strict=True))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_own_data_and_training_learns(tmp_path: Path, kind: str) -> None:
    save_pictures(tmp_path)  # plain colours under names that no pre-training gave them
    rows = [{"image": f"{c}.png", "caption": f"{article} {NEW_NAMES[c]}"} for c in COLOURS for article in ("a", "the")]
    file = tmp_path / f"mine.{kind}"
    with file.open("w", newline="") as out:
        if kind == "jsonl":
            out.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(out, ["image", "caption"])
            writer.writeheader()
            writer.writerows(rows)
    data = {"root": None, "augment": False, "scale": [1.0, 1.0]}
    run = write_run(tmp_path, Path("embedded"), {"train": str(file), "test": str(file)}, data=data,
                    objective={"queue_size": 0, "momentum": 0.0, "alpha": 0.0},
                    train={"epochs": 20, "schedule": "constant", "lr": 5e-3, "batch_size": 8})  # fmt: skip
    assert main(["train", str(run)]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    before, after = (row["text_to_image"]["r@1_itc"] for row in metrics["rows"])
    assert after >= before + 50
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_full_fine_tuning_leaves_a_model_that_loads(tmp_path: Path, base: Path) -> None:
    run = write_run(tmp_path, base, karpathy(tmp_path, "flickr30k"), model={"method": "full"}, train={"epochs": 1})
    assert main(["train", str(run)]) == 0
    rows = json.loads((tmp_path / "run/metrics.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["zero_shot", "full_fine_tuning"]
    assert rows[1]["trainable_percent"] == 100
    assert (
        main(["evaluate", str(run), "--model.base", str(tmp_path / "run/model"), "--output", str(tmp_path / "e")]) == 0
    )
    again = json.loads((tmp_path / "e/metrics.json").read_text())["rows"][0]
    assert again["text_to_image"] == rows[1]["text_to_image"]


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, base: Path) -> None:
    files = karpathy(tmp_path, "flickr30k")
    run = write_run(tmp_path, base, files, train={"epochs": 3, "save_every": 1})
    assert main(["train", str(run), "--output", str(tmp_path / "whole")]) == 0
    # Stopped in the middle of the second epoch, by the same check that Ctrl-C uses.
    from uniadapter.training.trainer import Trainer

    original = Trainer._step

    def stopping(self: Trainer, *args: object) -> object:
        losses = original(self, *args)  # type: ignore[arg-type]
        self._stop = self.step == 5
        return losses

    Trainer._step = stopping  # type: ignore[method-assign]
    try:
        with pytest.raises(SystemExit) as stop:
            main(["train", str(run), "--output", str(tmp_path / "parts")])
        assert stop.value.code == 130
    finally:
        Trainer._step = original  # type: ignore[method-assign]
    assert main(["train", str(run), "--output", str(tmp_path / "parts"), "--resume"]) == 0
    whole = load_file(tmp_path / "whole/adapter/adapter_model.safetensors")
    parts = load_file(tmp_path / "parts/adapter/adapter_model.safetensors")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["train", "RUN", "--train.lrr", "1"], ["lrr"]),
        (["train", "RUN", "--train.epochs", "0"], ["train.epochs"]),
        (["train", "RUN", "--train.lr", "fast"], ["train.lr"]),
        (["train", "no-such-config"], ["no-such-config", "coco"]),
        (["train", "RUN", "--data.train", "nowhere.json"], ["nowhere.json"]),
        (["train", "RUN", "--model.base", "/nowhere/at/all"], ["/nowhere/at/all"]),
        (["evaluate", "RUN", "--adapter", "/nowhere"], ["/nowhere", "uniadapter_config.json"]),
        (["evaluate", "RUN", "--split", "dev"], ["dev"]),
        (["evaluate", "RUN", "--evaluate.k", "-3"], ["evaluate.k is -3"]),
        (["evaluate", "RUN", "--evaluate.shortest", "50"], ["evaluate.shortest", "evaluate.longest"]),
        (["frobnicate"], ["frobnicate"]),
    ],
)
def test_bad_input_is_one_line_on_stderr(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], names: list[str]
) -> None:
    run = write_run(tmp_path, base, karpathy(tmp_path, "flickr30k"))
    code = main([str(run) if a == "RUN" else a for a in arguments])
    assert code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    for name in names:
        assert name in error


def test_unknown_key_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("model:\n  bse: x\n")
    assert main(["train", str(file)]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert "bse" in error


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for phrase in ("width between down- and up-projection", "momentum features kept", "the matching head reranks"):
        assert phrase in text


def launch(processes: int, *arguments: str) -> None:
    """Run a command in several processes on the CPU."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if sys.platform.startswith("linux"):
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
               "-m", "uniadapter", *arguments]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def test_two_processes_train_what_one_does(tmp_path: Path, base: Path) -> None:
    files = karpathy(tmp_path, "flickr30k")
    run = write_run(tmp_path, base, files, train={"epochs": 2, "batch_size": 6, "lr": 1e-3})
    for processes, name in ((1, "one"), (2, "two")):
        launch(processes, "train", str(run), "--output", str(tmp_path / name))
    one = load_file(tmp_path / "one/adapter/adapter_model.safetensors")
    two = load_file(tmp_path / "two/adapter/adapter_model.safetensors")
    start = load_file(_fresh(tmp_path, run))
    # The key adapter's biases have a true gradient of zero, whose rounding noise Adam blows up: left out.
    keys = [key for key in one if not (key.startswith("key.") and key.endswith("bias"))]
    moved = torch.cat([(one[key] - start[key]).flatten() for key in keys])
    apart = torch.cat([(one[key] - two[key]).flatten() for key in keys])
    assert moved.norm() > 0
    assert apart.norm() < 0.01 * moved.norm()
    losses = [[json.loads(line)["loss"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
              for name in ("one", "two")]  # fmt: skip
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-4)


def test_two_processes_measure_what_one_does(tmp_path: Path, base: Path) -> None:
    """Each encodes and reranks its share of the pictures; the first writes the whole result."""
    files = karpathy(tmp_path, "flickr30k")
    run = write_run(tmp_path, base, files, evaluate={"k": 3, "block": 0})
    for processes, name in ((1, "one"), (2, "two")):
        launch(processes, "evaluate", str(run), "--output", str(tmp_path / name))
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text())["rows"][0] for name in ("one", "two"))
    for direction in ("text_to_image", "image_to_text"):
        assert one[direction] == two[direction]


def _fresh(folder: Path, run: Path) -> Path:
    """The adapter file before any step."""
    from uniadapter.app.parsing import read_config
    from uniadapter.checkpoints.adapter_folder import save_adapter
    from uniadapter.tasks.preparing import prepare

    save_adapter(prepare(read_config(run)).model, folder / "fresh")
    return folder / "fresh/adapter_model.safetensors"
