"""Tiny random CLIPs and SigLIPs of every shape, and tokenizers of a few words made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from squares import COLOURS

PLACES = 12  # of the text towers
VOCABULARY = 40
WORDS = ["a", "square", "the", "picture", "of", *COLOURS]
# Equal and unequal widths and depths, as checkpoints have them: SigLIP base is 768 / 768, CLIP B/16 768 / 512.
SHAPES: list[dict[str, int]] = [
    {},
    {"vision_layers": 3},
    {"vision_layers": 1, "text_layers": 3},
    {"width": 48, "text_width": 32},
    {"text_width": 48, "vision_layers": 3},
]


def _parts(activation: str, sizes: dict[str, int]) -> tuple[dict[str, object], dict[str, object]]:
    s = {
        "width": 32,
        "text_width": 0,
        "vision_layers": 2,
        "text_layers": 2,
        "heads": 4,
        "image": 32,
        "patch": 8,
        "places": PLACES,
        "vocab": VOCABULARY,
        **sizes,
    }
    text_width = s["text_width"] or s["width"]
    vision = {
        "hidden_size": s["width"], "intermediate_size": 2 * s["width"], "num_hidden_layers": s["vision_layers"],
        "num_attention_heads": s["heads"], "image_size": s["image"], "patch_size": s["patch"], "hidden_act": activation,
    }  # fmt: skip
    text = {
        "hidden_size": text_width, "intermediate_size": 2 * text_width, "num_hidden_layers": s["text_layers"],
        "num_attention_heads": s["heads"], "max_position_embeddings": s["places"], "vocab_size": s["vocab"],
        "hidden_act": activation,
    }  # fmt: skip
    return vision, text


def _random(model: PreTrainedModel) -> PreTrainedModel:
    """In evaluation mode, biases and norms away from their defaults too, and the contrast as if trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        model.logit_scale.fill_(2.0)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(-1.0)
    return model.eval()


def tiny_clip(seed: int = 0, legacy: bool = False, attention: str = "sdpa", **sizes: int) -> PreTrainedModel:
    """A CLIP; `legacy` has the end token's id as in configs older than transformers 4.31, where ids are compared."""
    vision, text = _parts("quick_gelu", sizes)
    ends = (
        {"bos_token_id": 0, "eos_token_id": 2}
        if legacy
        else {"bos_token_id": text["vocab_size"] - 2, "eos_token_id": text["vocab_size"] - 1}
    )
    torch.manual_seed(seed)
    config = CLIPConfig(vision_config=vision, text_config={**text, **ends, "pad_token_id": 1}, projection_dim=16)
    return _random(CLIPModel._from_config(config, attn_implementation=attention))


def tiny_siglip(seed: int = 0, attention: str = "sdpa", **sizes: int) -> PreTrainedModel:
    """A SigLIP; features are as wide as the visual tower, and the text tower's head leads there."""
    vision, text = _parts("gelu_pytorch_tanh", sizes)
    torch.manual_seed(seed)
    config = SiglipConfig(vision_config=vision, text_config={**text, "projection_size": vision["hidden_size"]})
    return _random(SiglipModel._from_config(config, attn_implementation=attention))


BUILDERS: dict[str, Callable[..., PreTrainedModel]] = {"clip": tiny_clip, "siglip": tiny_siglip}


def pixels(count: int = 3, frames: int = 1, side: int = 32, seed: int = 0) -> Tensor:
    """Random frames [B, T, 3, side, side]."""
    return torch.randn(count, frames, 3, side, side, generator=torch.Generator().manual_seed(seed))


def clip_texts(count: int = 5, seed: int = 0, longest: int = 9) -> tuple[Tensor, Tensor]:
    """Ragged ids [S, L] with start (38) and end (39), padded with the end token on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 37, (count, longest), generator=generator)
    lengths = torch.randint(3, longest + 1, (count,), generator=generator)
    lengths[0] = longest
    place = torch.arange(longest)
    mask = (place < lengths[:, None]).long()
    ids[:, 0] = 38
    ids[place >= lengths[:, None] - 1] = 39
    return ids, mask


def siglip_texts(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ragged ids with an end (1) padded with the same to all places [S, PLACES], and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (count, PLACES), generator=generator)
    lengths = torch.randint(2, PLACES, (count,), generator=generator)
    place = torch.arange(PLACES)
    ids[place >= lengths[:, None] - 1] = 1
    return ids, (place < lengths[:, None]).long()


TEXTS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"clip": clip_texts, "siglip": siglip_texts}


def _vocabulary(words: list[str], special: list[str], behind: list[str]) -> dict[str, int]:
    """Special tokens before and behind the words; where there are few, unused ones up to `VOCABULARY`."""
    filling = [f"[unused{i}]" for i in range(VOCABULARY - len(special) - len(words) - len(behind))]
    return {word: index for index, word in enumerate([*special, *words, *filling, *behind])}


def _tokenizer(vocabulary: dict[str, int], unknown: str, single: str, lower: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(word, vocabulary[word]) for word in single.split() if word in vocabulary]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return tokenizer


def save_clip_tokenizer(folder: Path, words: list[str] = WORDS) -> int:
    """Whole words between CLIP's start and end tokens, the last two ids; the end token pads, as in CLIP's."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = _vocabulary(words, [], [start, end])
    built = _tokenizer(vocabulary, end, f"{start} $A {end}", lower=True)
    names = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    PreTrainedTokenizerFast(tokenizer_object=built, **names).save_pretrained(folder)
    return len(vocabulary)


def save_siglip_tokenizer(folder: Path, words: list[str] = WORDS, second: bool = False) -> int:
    """Whole words and an end token; of the `second` SigLIP with <pad> 0, left padding, and letters as they are."""
    if second:
        vocabulary = _vocabulary(words, ["<pad>", "<eos>", "<bos>", "<unk>"], [])
        built = _tokenizer(vocabulary, "<unk>", "$A <eos>", lower=False)
        names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "padding_side": "left"}
    else:
        vocabulary = _vocabulary(words, ["<unused>", "</s>", "<unk>"], [])
        built = _tokenizer(vocabulary, "<unk>", "$A </s>", lower=True)
        names = {"pad_token": "</s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=built, unk_token="<unk>", **names).save_pretrained(folder)
    return len(vocabulary)


def save_family(folder: Path, family: str, seed: int = 0, words: list[str] = WORDS, **sizes: int) -> Path:
    """A tiny random base of a family as a folder of transformers files, with a tokenizer of these words."""
    known = {"clip": save_clip_tokenizer, "siglip": save_siglip_tokenizer}[family](folder, words)
    BUILDERS[family](seed, vocab=known, **sizes).save_pretrained(folder)
    return folder
