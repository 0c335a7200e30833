"""A frozen base shared out among processes: the step of one process, half the memory, the same adapter file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from one_batch import CASES, Step, assert_steps_close, in_processes, make_loss, one_step, save_on_first, share
from safetensors.torch import load_file
from torch import Tensor, nn
from training_runs import changed, make_config, train, weights

from squares import save_base
from uniadapter.checkpoints.adapters import load_adapter
from uniadapter.checkpoints.loading import load_model
from uniadapter.config import ConfigError, ModelConfig, ObjectiveConfig, RunConfig, TrainConfig
from uniadapter.processes.distributed import rank
from uniadapter.runs.steps import evaluate_split, load_split, save_result
from uniadapter.tasks.preparing import prepare
from uniadapter.training.sharding import ShardedBase

SHARDED = ("contrast, queue", "contrast, sigmoid", "both", "both, two batches", "questions", "captions")
CPU = torch.device("cpu")
needs_processes = pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")


def held(module: nn.Module) -> int:
    """Bytes of the frozen matrices that this process holds, other than adapters'."""
    found = {}
    for name, p in module.named_parameters():
        if not p.requires_grad and p.ndim > 1 and "uniadapters" not in name:
            own: Tensor = p.to_local() if hasattr(p, "to_local") else p  # type: ignore[operator]
            found[own.untyped_storage().data_ptr()] = own.untyped_storage().nbytes()
    return sum(found.values())


def work(folder: str, config: RunConfig) -> None:
    """In each of two processes."""
    found = {}
    for name in SHARDED:
        torch.manual_seed(0)
        loss = make_loss(CASES[name])
        whole = held(loss)
        base = ShardedBase(loss.model, CPU)
        assert held(loss) < 0.6 * whole, "position embeddings and the class token are not shared out"
        found[name] = one_step(CASES[name], share((4, 3)), loss=loss)
        assert held(loss) < 0.6 * whole
        with base.gathered():
            assert held(loss) >= whole
        assert held(loss) < 0.6 * whole
    trainer = train(config, Path(folder) / "run", validate=lambda epoch: float(epoch))
    prepared = prepare(config)
    own = weights(trainer)
    if rank() == 0:
        prepared = replace(prepared, model=trainer.loss.model)
        save_result(prepared, config, Path(folder) / "run")
        result = evaluate_split(prepared, load_split(config, "test"), config)  # of this process alone
        torch.save((result.scores, own), Path(folder) / "trained.pt")
    save_on_first(found, Path(folder) / "found.pt")


@pytest.mark.slow
@needs_processes
def test_two_processes_that_share_the_base_train_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    config = make_config(tmp_path, save_base(tmp_path / "base"), epochs=1, max_steps=3, evaluate_every=1)
    config = replace(config, train=replace(config.train, batch_size=6, fsdp=True))
    in_processes(2, work, str(tmp_path), config)
    found: dict[str, Step] = torch.load(tmp_path / "found.pt", weights_only=False)
    for name, step in found.items():
        close = 1e-9 if CASES[name].task == "retrieval" else 1e-5
        assert_steps_close(step, one_step(CASES[name]), close)
    alone = train(changed(config, fsdp=False), tmp_path / "alone")
    scores, own = torch.load(tmp_path / "trained.pt", weights_only=False)
    for name, value in weights(alone).items():
        if name.endswith("key.up.bias"):
            continue  # has no gradient but rounding, which Adam makes steps of
        assert torch.allclose(own[name].double(), value.double(), rtol=0, atol=1e-5), name
    model = load_model(config.model.base)
    load_adapter(model, tmp_path / "run" / "adapter")  # which refuses another base than it names
    prepared = replace(prepare(changed(config, fsdp=False)), model=model)
    result = evaluate_split(prepared, load_split(config, "test"), config)
    assert result.scores == scores
    file = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert all(value.shape for name, value in file.items() if name != "temperature")


def test_what_sharing_out_cannot_do_is_one_line(tmp_path: Path) -> None:
    fsdp = TrainConfig(fsdp=True)
    with pytest.raises(ConfigError, match=r"train.micro_batch may count differently"):
        TrainConfig(fsdp=True, micro_batch=2)
    with pytest.raises(ConfigError, match=r"model.method full trains it"):
        RunConfig(model=ModelConfig(method="full"), train=fsdp)
    with pytest.raises(ConfigError, match=r"model.frame_chunk do not go together"):
        RunConfig(model=ModelConfig(frame_chunk=2), train=fsdp)
    with pytest.raises(ConfigError, match=r"objective.negatives all"):
        RunConfig(objective=ObjectiveConfig(negatives="batch"), train=fsdp)
    config = make_config(tmp_path, save_base(tmp_path / "base"), fsdp=True)
    with pytest.raises(ConfigError, match=r"start several with torchrun"):
        train(config)
