"""Tiny random BLIP-2s for the tests."""

from __future__ import annotations

import torch
from transformers import Blip2Config, Blip2ForImageTextRetrieval, OPTConfig

# Depths, widths, heads and cross-attention frequencies that differ, so that none stands in for another.
SHAPES: list[dict[str, int]] = [
    {},
    {"cross_every": 1, "text_layers": 2},
    {"width": 32, "vision_layers": 1, "queries": 5},
    {"width": 64, "text_width": 48, "text_layers": 4, "cross_every": 3, "projection": 8},
    {"text_layers": 1},
]


def tiny_blip2_config(text_input: bool = True, image_token: int | None = None, **sizes: int) -> Blip2Config:
    """A BLIP-2 of a few thousand parameters; sizes override."""
    s = {
        "width": 48, "text_width": 32, "vision_layers": 2, "text_layers": 3, "heads": 4, "image": 32, "patch": 16,
        "vocab": 64, "projection": 16, "positions": 40, "queries": 6, "cross_every": 2, **sizes,
    }  # fmt: skip
    return Blip2Config(
        vision_config={
            "hidden_size": s["width"], "intermediate_size": 2 * s["width"], "num_hidden_layers": s["vision_layers"],
            "num_attention_heads": s["heads"], "image_size": s["image"], "patch_size": s["patch"],
            "initializer_range": 0.05,
        },
        qformer_config={
            "vocab_size": s["vocab"], "hidden_size": s["text_width"], "intermediate_size": 2 * s["text_width"],
            "num_hidden_layers": s["text_layers"], "num_attention_heads": s["heads"],
            "max_position_embeddings": s["positions"], "cross_attention_frequency": s["cross_every"],
            "pad_token_id": 0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.2, "use_qformer_text_input": text_input,
        },
        text_config=OPTConfig(
            vocab_size=32, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=1,
            word_embed_proj_dim=16, max_position_embeddings=16,
        ).to_dict(),
        num_query_tokens=s["queries"],
        image_text_hidden_size=s["projection"],
        image_token_index=image_token,
    )  # fmt: skip


def tiny_blip2(
    seed: int = 0, attention: str = "sdpa", text_input: bool = True, image_token: int | None = None, **sizes: int
) -> Blip2ForImageTextRetrieval:
    """A tiny random BLIP-2 in evaluation mode; queries, biases and norms are away from their defaults too."""
    torch.manual_seed(seed)
    config = tiny_blip2_config(text_input, image_token, **sizes)
    config._attn_implementation = attention
    model = Blip2ForImageTextRetrieval(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        model.query_tokens.add_(torch.randn_like(model.query_tokens) * 0.5)
    return model.eval()
