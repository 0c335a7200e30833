"""The last two checkpoints are kept; a damaged newest one is noticed, and the run goes on from the one before."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import assert_same, changed, make_config, save_dropping_base, train, weights

from uniadapter.config import RunConfig
from uniadapter.errors import CheckpointError
from uniadapter.training import run_checkpoint
from uniadapter.training.run_checkpoint import CheckpointFile, read_checkpoint, read_tensors
from uniadapter.training.run_folder import CHECKPOINTS
from uniadapter.training.trainer import Trainer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("two")
    return make_config(folder, save_dropping_base(folder / "base"), save_every=2)


@pytest.fixture(scope="module")
def whole(config: RunConfig) -> dict[str, torch.Tensor]:
    return weights(train(config))


def killed(config: RunConfig, folder: Path, at: int = 7, **more: Any) -> None:
    """Train until an error after a step; the last two checkpoints are then at the even steps before it."""

    def on_progress(event: Any) -> None:
        if event.step == at:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(config, folder, on_progress=on_progress, **more)


def steps(folder: Path) -> list[int]:
    return [torch.load(folder / name)["place"]["step"] for name in CHECKPOINTS if (folder / name).exists()]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """One bit of the largest record, which holds a tensor of the queue."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b"", None], ids=["cut", "flipped", "empty", "gone"])
def test_the_one_before_goes_on_to_the_same_end_and_the_log_says_so(
    tmp_path: Path,
    config: RunConfig,
    whole: dict[str, torch.Tensor],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes] | None,
) -> None:
    killed(config, tmp_path)
    assert steps(tmp_path) == [6, 4]
    newest, previous = (tmp_path / name for name in CHECKPOINTS)
    if damage is None:
        newest.unlink()
    else:
        newest.write_bytes(damage(newest.read_bytes()))
    with caplog.at_level("WARNING", "uniadapter"):
        resumed = train(config, tmp_path, resume=True)
    told = [record.getMessage() for record in caplog.records if previous.name in record.getMessage()]
    assert len(told) == 1
    assert str(tmp_path) in told[0]
    assert f"going on from {previous.name} instead, at step 4" in told[0]
    assert "\n" not in told[0]
    assert_same(weights(resumed), whole)
    assert steps(tmp_path) == [12, 10]


def test_if_both_are_damaged_it_is_one_line_and_nothing_is_changed(tmp_path: Path, config: RunConfig) -> None:
    killed(config, tmp_path)
    for name in CHECKPOINTS:
        (tmp_path / name).write_bytes(cut((tmp_path / name).read_bytes()))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=rf"{CHECKPOINTS[0]}: not a readable checkpoint"):
        train(config, tmp_path, resume=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_refused_run_leaves_the_damaged_one_and_the_one_before(tmp_path: Path, config: RunConfig) -> None:
    killed(config, tmp_path)
    (tmp_path / CHECKPOINTS[0]).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"train.lr was 0.005, now 0.1"):
        train(changed(config, lr=0.1), tmp_path, resume=True)
    assert (tmp_path / CHECKPOINTS[0]).read_bytes() == b""
    assert read_checkpoint(tmp_path / CHECKPOINTS[1])["place"]["step"] == 4


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [one for key in sorted(value, key=str) for one in (key, *flat(value[key]))]
    if isinstance(value, (list, tuple)):
        return [one for inner in value for one in flat(inner)]
    return [value.tolist()] if isinstance(value, torch.Tensor) else [value]


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path, config: RunConfig) -> None:
    """At 300 random places of the file: it is refused, or the state is the same (padding between the records)."""
    train(changed(config, max_steps=2), tmp_path)
    path = tmp_path / CHECKPOINTS[0]
    content, wanted = path.read_bytes(), flat(read_checkpoint(path))
    rng, refused = random.Random(0), 0
    for _ in range(300):
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        try:
            assert flat(read_checkpoint(path)) == wanted, place
        except CheckpointError:
            refused += 1
    assert refused > 200


def test_a_flipped_bit_in_the_archive_s_directory_is_noticed(tmp_path: Path) -> None:
    """Every bit of it: a record may be marked as a folder, which torch reads as if it were empty."""
    path = tmp_path / "a.pt"
    wanted = {"one": torch.ones(3), "two": torch.full((3,), 2.0)}
    torch.save(wanted, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first = archive.start_dir
    refused = 0
    for place in range(first, len(content)):
        for bit in range(8):
            path.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
            try:
                found = read_tensors(path)
                assert all(torch.equal(found[name], value) for name, value in wanted.items()), (place, bit)
            except CheckpointError:
                refused += 1
    assert refused > 1000


def test_the_best_weights_follow_an_older_checkpoint(
    tmp_path: Path, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The best weights on disk are later than the checkpoint that is left: those before them are taken."""
    best = changed(config, save_every=0, evaluate_every=1, keep="best")
    kept: list[dict[str, torch.Tensor]] = []
    trainers: list[Trainer] = []

    def validate(epoch: int) -> float:
        kept.append({k: v.detach().clone() for k, v in trainers[-1].loss.named_parameters() if v.requires_grad})
        return [1.0, 2.0, 0.0][epoch - 1]

    killed(best, tmp_path, 9, validate=validate, ready=trainers.append)
    assert steps(tmp_path) == [8, 4]
    (tmp_path / CHECKPOINTS[0]).write_bytes(b"")
    resumed = train(best, tmp_path, resume=True, validate=lambda epoch: 0.5)  # another score than before
    assert resumed.weights_info == {"which": "best", "step": 4, "validation": 1.0}
    own = {k: v.detach() for k, v in resumed.loss.named_parameters() if v.requires_grad}
    assert_same(own, kept[0])


def test_without_hard_links_two_are_kept_too(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("this file system has none")

    monkeypatch.setattr(os, "link", refuse)
    train(changed(config, max_steps=5), tmp_path)
    assert steps(tmp_path) == [5, 4]


def test_a_new_run_does_not_keep_the_checkpoint_of_the_one_it_replaces(tmp_path: Path, config: RunConfig) -> None:
    train(changed(config, max_steps=5), tmp_path)
    train(changed(config, max_steps=1), tmp_path)
    assert steps(tmp_path) == [1]


def test_a_failed_write_leaves_two_good_ones(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CheckpointFile(tmp_path / "state.pt")
    for value in (1, 2):
        file.write({"value": torch.tensor(value)})

    def full(state: object, target: Any) -> None:
        target.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_checkpoint.torch, "save", full)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="No space left on device"):
            file.write({"value": torch.tensor(3)})
    monkeypatch.undo()
    assert int(torch.load(file.path)["value"]) == 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state.previous.pt", "state.pt"]
    file.write({"value": torch.tensor(3)})
    assert [int(torch.load(one)["value"]) for one in (file.path, file.previous)] == [3, 2]
