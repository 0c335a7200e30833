"""The end of a run: log line, checkpoint and validation, with any settings, and the weights that it keeps."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import assert_same, changed, make_config, train, weights

from squares import save_base
from uniadapter.app.cli import main
from uniadapter.config import RunConfig
from uniadapter.errors import CheckpointError
from uniadapter.runs.steps import write_config
from uniadapter.training.run_checkpoint import CHECKPOINT, CheckpointFile, write_checkpoint
from uniadapter.training.trainer import Trainer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("ending")
    return make_config(folder, save_base(folder / "base"))


@pytest.mark.parametrize(
    ("settings", "validated", "saved"),
    [
        ({"epochs": 1}, [4], [4]),
        ({"epochs": 2}, [8], [4, 8]),
        ({"epochs": 2, "evaluate_every": 1}, [4, 8], [4, 8]),
        ({"epochs": 3, "evaluate_every": 2}, [8, 12], [4, 8, 12]),
        ({"epochs": 3, "evaluate_every": 1, "save_every": 3, "max_steps": 7}, [4, 7], [3, 4, 6, 7]),
        ({"epochs": 3, "save_every": 100, "max_steps": 2}, [2], [2]),
        ({"epochs": 1, "accumulate": 3, "log_every": 100}, [2], [2]),
    ],
)
def test_after_the_last_step_come_log_line_checkpoint_and_validation(
    tmp_path: Path,
    config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    validated: list[int],
    saved: list[int],
) -> None:
    events: list[tuple[str, int]] = []
    write = CheckpointFile.write
    trainers: list[Trainer] = []

    def spy(self: CheckpointFile, state: dict[str, Any]) -> None:
        events.append(("saved", state["place"]["step"]))
        write(self, state)

    def validate(epoch: int) -> float:
        events.append(("validated", trainers[0].step))
        return 0.0

    monkeypatch.setattr(CheckpointFile, "write", spy)
    trainer = train(
        changed(config, **settings), tmp_path, ready=trainers.append, validate=validate,
        on_progress=lambda event: events.append(("logged", event.step)),
    )  # fmt: skip
    assert [step for kind, step in events if kind == "validated"] == validated
    assert [step for kind, step in events if kind == "saved"] == saved
    last = trainer.step
    assert events[-3:] == [("logged", last), ("saved", last), ("validated", last)]
    assert all(events[events.index(("validated", step)) - 1] == ("saved", step) for step in validated)
    assert trainer.weights_info == {"which": "last", "step": last, "validation": 0.0}


def test_the_best_by_validation_is_kept_the_earlier_of_equals(tmp_path: Path, config: RunConfig) -> None:
    figures = iter([1.0, 3.0, 3.0, 2.0])
    after: list[dict[str, torch.Tensor]] = []
    trainers: list[Trainer] = []

    def validate(epoch: int) -> float:
        after.append({name: p.detach().clone() for name, p in trainers[0].loss.named_parameters() if p.requires_grad})
        return next(figures)

    best = changed(config, epochs=4, evaluate_every=1, keep="best")
    trainer = train(best, tmp_path, ready=trainers.append, validate=validate)
    assert trainer.weights_info == {"which": "best", "step": 8, "validation": 3.0}
    kept = {name: p.detach() for name, p in trainer.loss.named_parameters() if p.requires_grad}
    assert_same(kept, after[1])
    assert any(not torch.equal(value, after[3][name]) for name, value in kept.items())


def test_weights_chosen_on_test_say_what_that_has_brought(tmp_path: Path, config: RunConfig) -> None:
    run, out = tmp_path / "run.yaml", tmp_path / "out"
    write_config(changed(config, epochs=3, keep="best_on_test", evaluate_every=1), run)
    assert main(["train", str(run), "--output", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    seen = [json.loads(line)["validation"] for line in (out / "validation.jsonl").read_text().splitlines()]
    kept = metrics["kept"]
    assert (kept["which"], kept["test"], kept["last"], kept["gap"]) == (
        "best_on_test", max(seen), seen[-1], max(seen) - seen[-1],
    )  # fmt: skip
    rows = {row["method"]: row for row in metrics["rows"]}
    assert rows["uniadapter"]["setting"] == "weights chosen on test"
    assert rows["uniadapter"]["text_to_image"]["r@1"] == max(seen)
    assert "setting" not in rows["zero_shot"]
    assert "the test split chooses the weights" in (out / "train.log").read_text()
    assert main(["train", str(run), "--output", str(tmp_path / "none"), "--data.test=null"]) == 2


def test_the_best_survives_a_resume_and_validation_is_not_read_twice(tmp_path: Path, config: RunConfig) -> None:
    best = changed(config, epochs=3, evaluate_every=1, keep="best")
    whole = train(best, tmp_path / "whole", validate=lambda epoch: [5.0, 2.0, 4.0][epoch - 1])
    calls: list[int] = []

    def validate(epoch: int) -> float:
        calls.append(epoch)
        if calls == [1, 2]:
            raise RuntimeError("the machine went down while validation ran")
        return [5.0, 2.0, 4.0][epoch - 1]

    with pytest.raises(RuntimeError, match="went down"):
        train(best, tmp_path / "parts", validate=validate)
    parts = train(best, tmp_path / "parts", resume=True, validate=validate)
    assert calls == [1, 2, 2, 3]
    assert parts.weights_info == whole.weights_info == {"which": "best", "step": 4, "validation": 5.0}
    assert_same(weights(parts), weights(whole))
    again = train(best, tmp_path / "parts", resume=True, validate=validate)  # all is done: nothing is done again
    assert calls == [1, 2, 2, 3]
    assert again.weights_info == whole.weights_info
    assert_same(weights(again), weights(whole))


def test_kept_weights_are_in_the_metrics_and_a_failed_evaluation_can_be_resumed(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run: keep the best, fail while measuring, resume; nothing is trained again."""
    run = tmp_path / "run.yaml"
    write_config(changed(config, epochs=2, keep="best", evaluate_every=1), run)
    out = tmp_path / "out"
    from uniadapter.app import commands

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("the disk with the test pictures is gone")

    with monkeypatch.context() as patch:
        patch.setattr(commands, "measure", broken)
        assert main(["train", str(run), "--output", str(out)]) == 2
    assert "is gone" in capsys.readouterr().err
    assert not (out / "metrics.json").exists()
    before = load_file(out / "adapter/adapter_model.safetensors")
    steps: list[object] = []
    original = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, *rest: (steps.append(self), original(self, *rest)))
    assert main(["train", str(run), "--output", str(out), "--resume"]) == 0
    assert not steps
    metrics = json.loads((out / "metrics.json").read_text())
    validations = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    best = max(validations, key=lambda line: line["validation"])
    assert metrics["kept"] == {"which": "best", "step": best["step"], "validation": best["validation"]}
    assert_same(load_file(out / "adapter/adapter_model.safetensors"), before)
    history = [json.loads(line)["step"] for line in (out / "history.jsonl").read_text().splitlines()]
    assert history == list(range(1, 9))


def test_keeping_the_best_needs_validation(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.yaml"
    write_config(changed(config, keep="best"), run)
    assert main(["train", str(run), "--data.val", "null", "--output", str(tmp_path / "out")]) == 2
    assert "train.keep is best" in capsys.readouterr().err


def test_the_same_adapter_is_the_same_file(tmp_path: Path, config: RunConfig) -> None:
    from uniadapter.checkpoints.adapter_folder import save_adapter
    from uniadapter.tasks.preparing import prepare

    model = prepare(config).model
    files = [save_adapter(model, tmp_path / str(n), base="tiny") / "adapter_model.safetensors" for n in range(8)]
    assert len({file.read_bytes() for file in files}) == 1


def test_why_a_checkpoint_could_not_be_written_is_the_systems_own_word(tmp_path: Path) -> None:
    """Behind a full disk, as behind a limit on the size of files, torch says "unexpected pos"."""
    file = tmp_path / CHECKPOINT
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"could not be written \(File too large\); the last one is unchanged"
        ):
            write_checkpoint(file, {"weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
