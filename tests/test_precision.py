"""A base whose frozen matrices are rounded once computes what autocast computes, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval, BlipForQuestionAnswering, PreTrainedModel

from tiny import randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.config import AdapterConfig, EvaluateConfig, ModelConfig, RunConfig, TrainConfig
from uniadapter.model.blip.decoder import question_context, text_nll
from uniadapter.model.counting import count_parameters
from uniadapter.model.encoding import encode_text, encode_visual, match
from uniadapter.model.identity import base_hash
from uniadapter.model.precision import round_frozen
from uniadapter.model.sets import add_momentum
from uniadapter.tasks.preparing import prepare

PAIRS = torch.cartesian_prod(torch.arange(5), torch.arange(3))


def adapted(cls: type[PreTrainedModel] = BlipForImageTextRetrieval) -> PreTrainedModel:
    """A random model with a random adapter, the same each time."""
    model = tiny_model(cls)
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4)))
    return model


def step(model: PreTrainedModel) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and the adapters' gradients under autocast."""
    frames = torch.randn(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids, mask = tiny_texts(5)
    trained = [p for p in model.parameters() if p.requires_grad]
    with torch.autocast("cpu", torch.bfloat16):
        visuals = encode_visual(model, frames)
        if isinstance(model, BlipForQuestionAnswering):
            context = question_context(model, visuals, ids, mask, torch.tensor([0, 1, 2, 0, 1]))
            outputs = [text_nll(model, context, torch.arange(5), ids, mask)]
        else:
            texts = encode_text(model, ids, mask)
            outputs = [visuals.feature, texts.feature, match(model, texts, visuals, PAIRS)]
    grads = torch.autograd.grad(sum(o.square().sum() for o in outputs), trained, allow_unused=True)
    return [o.detach() for o in outputs], [g for g in grads if g is not None]


@pytest.mark.parametrize("cls", [BlipForImageTextRetrieval, BlipForQuestionAnswering])
def test_outputs_and_gradients_are_autocasts_to_the_bit(cls: type[PreTrainedModel]) -> None:
    expected, rounded = step(adapted(cls)), adapted(cls)
    assert round_frozen(rounded, torch.bfloat16) > 20
    found = step(rounded)
    assert len(found[1]) > 20
    for ours, theirs in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert torch.equal(ours, theirs)


def test_what_trains_and_what_moves_keeps_its_precision() -> None:
    model = adapted()
    add_momentum(model)
    before = count_parameters(model)
    round_frozen(model, torch.bfloat16)
    assert count_parameters(model) == before
    for name, parameter in model.named_parameters():
        frozen_matrix = name.endswith(("query.weight", "qkv.weight", "dense.weight", "fc1.bias"))
        assert parameter.dtype == (torch.bfloat16 if frozen_matrix else torch.float32) or "layer" in name, name
    for owned in (model.uniadapters, model.itm_head, model.vision_proj):
        assert {p.dtype for p in owned.parameters()} == {torch.float32}
    assert model.dtype == torch.float32, "norms and embeddings stay"
    trainable = tiny_model().requires_grad_(True)
    assert round_frozen(trainable, torch.bfloat16) == 0, "full fine-tuning trains what would be rounded"


def test_adapter_files_name_the_base_before_it_was_rounded(tmp_path: Path) -> None:
    model = adapted()
    expected = base_hash(model)
    round_frozen(model, torch.bfloat16)
    assert base_hash(model) == expected
    assert round_frozen(model, torch.bfloat16) == 0, "twice is once"
    assert base_hash(model) == expected
    save_adapter(model, tmp_path / "adapter", base="tiny")
    load_adapter(tiny_model(), tmp_path / "adapter")  # refuses another base
    linear = next(m for m in model.vision_model.modules() if isinstance(m, nn.Linear))
    assert linear.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("method", "train", "evaluate", "rounded"),
    [
        ("uniadapter", "bf16", "bf16", True),
        ("uniadapter", "bf16", "no", False),  # evaluation would want float32
        ("uniadapter", "no", "bf16", False),
        ("uniadapter", "no", "no", False),
        ("none", "no", "bf16", True),  # measured only
        ("full", "bf16", "bf16", False),
    ],
)
def test_a_run_rounds_where_nothing_wants_more(method: str, train: str, evaluate: str, rounded: bool) -> None:
    config = RunConfig(
        model=ModelConfig(method=method),  # type: ignore[arg-type]
        train=TrainConfig(precision=train),  # type: ignore[arg-type]
        evaluate=EvaluateConfig(precision=evaluate),  # type: ignore[arg-type]
    )
    weight = prepare(config).model.vision_model.encoder.layers[0].self_attn.qkv.weight
    assert (weight.dtype == torch.bfloat16) == rounded
