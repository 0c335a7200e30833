"""Divergence is reported in one line at its step, and no checkpoint with bad weights is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import changed, make_config, train

from squares import save_base
from uniadapter.app.cli import main
from uniadapter.config import RunConfig
from uniadapter.runs.steps import write_config
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.divergence import DIVERGED, Diverged, first_nonfinite
from uniadapter.training.run_folder import CHECKPOINTS
from uniadapter.training.trainer import CHECKPOINT, Trainer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("divergence")
    return make_config(folder, save_base(folder / "base"), save_every=1)


def poison(trainer: Trainer, value: float, after: int) -> None:
    """Set the weights to a value once so many steps are done."""
    original = trainer._step

    def step(*rest: Any) -> None:
        original(*rest)
        if trainer.step == after:
            with torch.no_grad():
                for p in trainer.loss.parameters():
                    if p.requires_grad:
                        p.fill_(value)

    trainer._step = step  # type: ignore[method-assign]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_bad_weights_are_never_saved(tmp_path: Path, config: RunConfig, value: float) -> None:
    with pytest.raises(Diverged, match="training diverged in step"):
        train(config, tmp_path, ready=lambda trainer: poison(trainer, value, 3))
    state = torch.load(tmp_path / CHECKPOINT)
    assert state["place"]["step"] == 2
    assert first_nonfinite(state["trainable"]) is None


@pytest.mark.parametrize("objective", ["itc", "itm", "gradient"])
def test_whoever_sees_it_first(
    tmp_path: Path,
    config: RunConfig,
    objective: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through the command line: one line with the step, the samples in a file, a good checkpoint, no adapter."""
    original = RetrievalLoss.losses
    calls: list[int] = []

    def losses(self: RetrievalLoss, frames: torch.Tensor, *rest: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) < 3:
            return original(self, frames, *rest)
        if objective == "gradient":
            found = original(self, frames, *rest)
            root = sum(p.sum() for p in self.parameters() if p.requires_grad)
            return {**found, "loss": found["loss"] + (root - root.detach()).sqrt()}
        return original(self, frames * torch.nan, *rest)

    monkeypatch.setattr(RetrievalLoss, "losses", losses)
    file = tmp_path / "run.yaml"
    write_config(config, file)
    out = tmp_path / "run"
    off = {"itc": ["--objective.matching", "false"], "itm": ["--objective.contrastive", "false"], "gradient": []}
    queue = ["--objective.queue_size", "0"] if objective == "itm" else []
    assert main(["train", str(file), "--output", str(out), *off[objective], *queue]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: training diverged in step 3: ")
    assert str(out / DIVERGED) in errors[0] or errors[0].endswith("…")
    told = json.loads((out / DIVERGED).read_text())
    assert told["step"] == 2
    assert len(told["samples"]) == 5
    assert all(sample["id"].startswith("tiny_") and sample["text"] for sample in told["samples"])
    assert not (out / "adapter").exists()
    # Nothing was made from what was saved last, so the checkpoint before it, known to be good, is back.
    assert torch.load(out / CHECKPOINT)["place"]["step"] == 1
    assert not list(out.glob("*checkpoint*previous*"))


def test_a_checkpoint_from_which_a_step_was_made_is_not_rolled_back(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(Diverged):
        train(changed(config, save_every=2), tmp_path, ready=lambda trainer: poison(trainer, float("nan"), 5))
    assert [torch.load(tmp_path / name)["place"]["step"] for name in CHECKPOINTS] == [4, 2]
