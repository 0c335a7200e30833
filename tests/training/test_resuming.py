"""A resumed run equals the uninterrupted one bit for bit, or is refused in one line."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import assert_same, changed, make_config, save_dropping_base, train, weights

from squares import save_base
from uniadapter.app.commands import trained_without
from uniadapter.config import AdapterConfig, RunConfig
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.errors import CheckpointError, Interrupted
from uniadapter.training.progress import ProgressEvent
from uniadapter.training.resume import MAY_DIFFER, data_hash, flatten_config
from uniadapter.training.trainer import CHECKPOINT


def test_the_hash_of_data_stays_so_that_runs_and_records_of_earlier_versions_are_found_again() -> None:
    pairs = RetrievalSplit(
        "train", [Path("a.jpg"), Path("b.jpg")], ["a", "b"], ["f[0]", "f[1]"], ["one", "two"], [0, 1]
    )
    asked = QuestionSplit(
        "train", [Path("a.jpg")], ["a"], ["f[0]"], ["what?"], [0], question_ids=[7], answers=[{"a": 1.0}],
        annotators=[("a",)], kinds=[""], question_types=[""],
    )  # fmt: skip
    assert data_hash(pairs) == "a69b7d05478b84653d14275d3a2ece984fe76fa76c9553984b8abd2ffb3e430b"
    assert data_hash(asked) == "4193b0e24a8a266fe1b4b53d2ab3e09e0ed20d6c603d7e05e7587f844b8ae6c1"
    told = replace(pairs, errors={"unusable caption": ["f[2]: not a string"]}, notes=["a note"])
    assert data_hash(told) == data_hash(pairs)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("resuming")
    return make_config(folder, save_dropping_base(folder / "base"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> Path:
    """A run stopped after its fifth step; not to be written to."""
    return stop_at(5, config, tmp_path_factory.mktemp("stopped") / "run")


def stop_at(step: int, config: RunConfig, folder: Path, resume: bool = False) -> Path:
    def on_progress(event: ProgressEvent) -> None:
        if event.step == step:
            os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(Interrupted):
        train(config, folder, resume, on_progress=on_progress)
    return folder


def copied(stopped: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in stopped.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_with_dropout_and_two_stops_it_is_the_same_run(tmp_path: Path, config: RunConfig) -> None:
    torch.manual_seed(123)  # whatever the process drew before
    whole = train(config, tmp_path / "whole")
    torch.manual_seed(456)
    folder = stop_at(3, config, tmp_path / "parts")
    torch.rand(7)
    stop_at(6, config, folder, resume=True)
    parts = train(config, folder, resume=True)
    assert_same(weights(parts), weights(whole))
    losses = [[{k: v for k, v in r.items() if k != "samples_per_second"} for r in t.history] for t in (whole, parts)]
    assert losses[0] == losses[1]


def test_dropout_is_on_and_does_not_use_the_callers_generator(config: RunConfig) -> None:
    from uniadapter.tasks.preparing import prepare

    assert prepare(config).model.text_encoder.embeddings.dropout.p == 0.1
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(changed(config, max_steps=1))
    assert torch.equal(torch.rand(3), expected)


def test_history_and_seconds_cover_the_whole_run_once(tmp_path: Path, config: RunConfig) -> None:
    """What was logged behind the last checkpoint is logged again, once; a mean over steps spans the stop."""
    whole = train(changed(config, log_every=4), tmp_path / "whole")
    every = changed(config, log_every=4, save_every=3)
    folder = tmp_path / "parts"

    def on_progress(event: ProgressEvent) -> None:
        if event.step == 8:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(every, folder, on_progress=on_progress)
    assert torch.load(folder / CHECKPOINT)["place"]["step"] == 6
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # cut short
    parts = train(every, folder, resume=True)
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    for mine, line, wanted in zip(parts.history, lines, whole.history, strict=True):
        assert mine == line
        assert mine["loss"] == pytest.approx(wanted["loss"], abs=1e-6)
    saved = torch.load(folder / CHECKPOINT)["seconds"]
    assert parts.seconds_before > 0
    assert parts.seconds_before < saved <= parts.seconds


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"train.seed": 2}, ["train.seed was 1, now 2"]),
        ({"train.lr": 1e-3}, ["train.lr was 0.005, now 0.001"]),
        ({"train.weight_decay": 0.1}, ["train.weight_decay"]),
        ({"train.epochs": 9}, ["train.epochs was 3, now 9"]),
        ({"train.accumulate": 2}, ["train.accumulate"]),
        ({"train.batch_size": 4}, ["train.batch_size was 5, now 4"]),
        ({"train.keep": "best"}, ["train.keep was last, now best"]),
        ({"data.scale": (0.6, 1.0)}, ["data.scale"]),
        ({"data.flip": False, "data.augment": False}, ["data.augment", "data.flip"]),
        ({"model.adapter": AdapterConfig(bottleneck=8, key_value=2)}, ["model.adapter.bottleneck was 4, now 8"]),
        ({"model.method": "full"}, ["model.method was uniadapter, now full"]),
        ({"objective.queue_size": 8}, ["objective.queue_size was 16, now 8"]),
        ({"objective.train_temperature": True}, ["objective.train_temperature"]),
    ],
)
def test_other_settings_are_one_line(
    stopped: Path, config: RunConfig, change: dict[str, Any], names: list[str]
) -> None:
    for key, value in change.items():
        section, name = key.split(".")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    before = {file.name: file.read_bytes() for file in stopped.iterdir()}
    with pytest.raises(CheckpointError) as error:
        train(config, stopped, resume=True)
    for name in names:
        assert name in str(error.value)
    assert CHECKPOINT in str(error.value)
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in stopped.iterdir()} == before


@pytest.mark.parametrize("kind", ["reordered", "another caption", "another picture", "another base"])
def test_other_data_or_another_base_is_one_line(tmp_path: Path, stopped: Path, config: RunConfig, kind: str) -> None:
    assert config.data.train is not None
    assert config.data.root is not None
    rows = json.loads(Path(config.data.train).read_text())
    base, root = config.model.base, config.data.root
    if kind == "reordered":
        rows = rows[::-1]
    elif kind == "another caption":
        rows[3]["caption"] += " indeed"
    elif kind == "another base":
        base = str(save_base(tmp_path / "other", seed=3))
    else:
        root = str(tmp_path / "pictures")
        Path(root).mkdir()
        for file in Path(config.data.root).glob("*.jpg"):
            (Path(root) / file.name).write_bytes(file.read_bytes() + b" " * (file.name == "blue.jpg"))
    file = tmp_path / "train.json"
    file.write_text(json.dumps(rows))
    other = replace(
        config, data=replace(config.data, train=str(file), root=root), model=replace(config.model, base=base)
    )
    with pytest.raises(CheckpointError, match="model.base" if kind == "another base" else "data.train"):
        train(other, stopped, resume=True)


def test_some_settings_may_change_when_resuming(tmp_path: Path, stopped: Path, config: RunConfig) -> None:
    """Moved files, another log, other evaluation settings: the same run."""
    whole = train(config)
    assert config.data.train is not None
    moved = tmp_path / "moved.json"
    moved.write_text(Path(config.data.train).read_text())
    other = changed(config, log_every=3, save_every=2)
    other = replace(
        other,
        output=str(tmp_path),
        data=replace(config.data, train=str(moved), val=None, on_error="skip"),
        evaluate=replace(config.evaluate, k=3, batch_size=2),
    )
    assert_same(weights(train(other, copied(stopped, tmp_path / "run"), resume=True)), weights(whole))
    assert set(MAY_DIFFER) <= set(flatten_config(config))


@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "text", "pickle", "part", "place", "nan", "shape", "gone"])
def test_a_broken_checkpoint_is_one_line(tmp_path: Path, stopped: Path, config: RunConfig, kind: str) -> None:
    folder = copied(stopped, tmp_path / "run")
    path = folder / CHECKPOINT
    (folder / "checkpoint.previous.pt").unlink()  # from which the run would go on
    content = path.read_bytes()
    state = torch.load(path)
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        value = next(iter(state["trainable"].values()))
        place = content.index(value.numpy().tobytes())
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "pickle":
        torch.save([1, 2], path)
    elif kind == "gone":
        path.unlink()
    else:
        if kind == "part":
            del state["optimizer"]
        elif kind == "place":
            state["place"]["step"] = -1
        elif kind == "nan":
            next(iter(state["trainable"].values())).fill_(torch.nan)
        else:
            state["task"]["queue"]["visual"] = torch.zeros(3, 3)
        torch.save(state, path)
    with pytest.raises(CheckpointError) as error:
        train(config, folder, resume=True)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_was_left_out_before_is_counted_once_after_resuming(tmp_path: Path) -> None:
    config = make_config(tmp_path, save_dropping_base(tmp_path / "base"))
    config = replace(config, data=replace(config.data, on_error="skip"))
    picture = min(tmp_path.rglob("*.jpg"))
    whole = picture.read_bytes()
    picture.write_bytes(bytes(len(whole)))
    stop_at(6, config, tmp_path / "run")  # of twelve, in the second epoch, where it has been met twice
    picture.write_bytes(whole)
    resumed = train(config, tmp_path / "run", resume=True)
    assert resumed.step == 12
    assert trained_without(resumed) == {"trained_without": {"faults": {"corrupt picture": 1}}}
    assert resumed.loader.skipped == {"corrupt picture": 1}
