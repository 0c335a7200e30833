"""Tiny random BLIPs and texts for the tests."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)


def tiny_config(**sizes: int) -> BlipConfig:
    """A BLIP of a few thousand parameters; sizes override."""
    s = {
        "width": 32, "text_width": 0, "vision_layers": 2, "text_layers": 2, "heads": 4, "image": 32, "patch": 16,
        "vocab": 64, "projection": 16, "positions": 40, **sizes,
    }  # fmt: skip
    text_width = s["text_width"] or s["width"]
    return BlipConfig(
        vision_config={
            "hidden_size": s["width"], "intermediate_size": 2 * s["width"], "num_hidden_layers": s["vision_layers"],
            "num_attention_heads": s["heads"], "image_size": s["image"], "patch_size": s["patch"],
            "layer_norm_eps": 1e-6, "initializer_range": 0.05,
        },
        text_config={
            "vocab_size": s["vocab"], "hidden_size": text_width, "encoder_hidden_size": s["width"],
            "intermediate_size": 2 * text_width, "num_hidden_layers": s["text_layers"],
            "num_attention_heads": s["heads"], "max_position_embeddings": s["positions"],
            "bos_token_id": s["vocab"] - 2, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3,
            "is_decoder": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        },
        image_text_hidden_size=s["projection"],
        initializer_range=0.2,
    )  # fmt: skip


def tiny_model(cls: type[PreTrainedModel] = BlipForImageTextRetrieval, seed: int = 0, **sizes: int) -> PreTrainedModel:
    """A tiny random BLIP in evaluation mode, biases and norms away from their defaults too."""
    torch.manual_seed(seed)
    model = cls(tiny_config(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def randomise(module: torch.nn.Module, scale: float = 0.3, seed: int = 0) -> None:
    """Move every parameter away from its start, so that nothing is zero or identity by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def tiny_texts(count: int = 5, longest: int = 7, seed: int = 0, vocab: int = 64) -> tuple[Tensor, Tensor]:
    """Ragged random ids [S, L] (first token 2, padding 0) and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, vocab - 2, (count, longest), generator=generator)
    lengths = torch.randint(2, longest + 1, (count,), generator=generator)
    lengths[0] = longest
    mask = (torch.arange(longest) < lengths[:, None]).long()
    ids[:, 0] = 2
    return ids * mask, mask


TASK_MODELS = (BlipForImageTextRetrieval, BlipForQuestionAnswering, BlipForConditionalGeneration)
