"""Tiny random bases of each family with the embedded tokenizer, so that they can be trained on the embedded scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    OPTConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)

from uniadapter.files.assets import asset_path

PLACES = 64
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 48,
    "patch_size": 16,
}  # fmt: skip


def _clip(words: int, ids: dict[str, int]) -> PreTrainedModel:
    text = {
        "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": PLACES, "vocab_size": words, "bos_token_id": ids["[CLS]"],
        "eos_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"],
    }  # fmt: skip
    return CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=16))


def _siglip(words: int, ids: dict[str, int]) -> PreTrainedModel:
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": PLACES, "vocab_size": words, "projection_size": 32, "pad_token_id": ids["[PAD]"],
        "bos_token_id": ids["[CLS]"], "eos_token_id": ids["[SEP]"],
    }  # fmt: skip
    return SiglipModel(SiglipConfig(vision_config=VISION, text_config=text))


def _blip2(words: int, ids: dict[str, int]) -> PreTrainedModel:
    qformer = {
        "vocab_size": words, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": PLACES, "cross_attention_frequency": 2,
        "pad_token_id": ids["[PAD]"], "use_qformer_text_input": True, "encoder_hidden_size": 32,
        "initializer_range": 0.2,
    }  # fmt: skip
    language = OPTConfig(
        vocab_size=32, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=1, word_embed_proj_dim=16,
        max_position_embeddings=16,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=VISION, qformer_config=qformer, text_config=language.to_dict(), num_query_tokens=4,
        image_text_hidden_size=16,
    )  # fmt: skip
    model = Blip2ForImageTextRetrieval(config)
    with torch.no_grad():
        model.query_tokens.normal_()  # zeros would be alike for ever
    return model


BUILDERS: dict[str, Callable[[int, dict[str, int]], PreTrainedModel]] = {
    "clip": _clip,
    "siglip": _siglip,
    "blip2": _blip2,
}


def save_scene_base(folder: Path, family: str) -> Path:
    """A base of a family, with weights that tell pictures and texts apart, as a folder of transformers files."""
    tokenizer = AutoTokenizer.from_pretrained(asset_path("backbone"))
    torch.manual_seed(0)
    model = BUILDERS[family](len(tokenizer), tokenizer.get_vocab())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer.eos_token = "[SEP]"
    if family == "clip":
        tokenizer.bos_token = "[CLS]"
    tokenizer.save_pretrained(folder)
    return folder
