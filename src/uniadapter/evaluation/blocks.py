"""Pairs cut into blocks that fit: whole visuals where possible, so that keys and values are projected once."""

from __future__ import annotations

import itertools

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.backbone import backbone

_CPU_TOKENS = 1536  # text tokens of a block: more brings little on a CPU, and costs memory
_CPU_VISUAL_TOKENS = 16384  # of a block's visuals, at most: 50 MB of BLIP-base's, and twice that of keys and values
_SHARE = 0.25  # of a GPU's free memory that a block's states may take


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def block_pairs(model: PreTrainedModel, tokens: float) -> int:
    """Pairs fused at once that the device has room for.

    Args:
        model: a BLIP with a text encoder.
        tokens: of a text, on average.
    """
    features = backbone(model).layout.features
    queries = features if features > 1 else 0  # where a visual has several, so many queries stand beside each text
    return max(1, int(_fitting_tokens(model) / max(tokens + queries, 1.0)))


def block_questions(model: PreTrainedModel, tokens: float) -> int:
    """Questions whose answers are ranked at once that the device has room for.

    Args:
        model: a BLIP with an answer decoder.
        tokens: of a question's answers, those that several answers begin with counted once.
    """
    layout = backbone(model).layout
    kept = 4 * layout.text_layers * layout.text_width  # keys and values of every layer, at two depths of the tree
    return max(1, int(_fitting_tokens(model, kept) / max(tokens, 1.0)))


def _fitting_tokens(model: PreTrainedModel, kept: int = 0) -> int:
    """Text tokens at once, each of which keeps so many numbers besides a layer's states."""
    if model.device.type == "cpu":
        return _CPU_TOKENS
    layout = backbone(model).layout
    width = 12 * layout.text_width + 2 * layout.feed_forward  # states of a layer that are alive at once
    return int(_SHARE * free_memory(model.device) / (4 * (width + kept)))


def block_visuals(model: PreTrainedModel, tokens: int) -> int:
    """Visuals of a block that the device has room for.

    Args:
        model: a BLIP with a text encoder.
        tokens: of a visual; 0 where none are kept.
    """
    tokens = max(1, tokens)
    if model.device.type == "cpu":
        return max(1, _CPU_VISUAL_TOKENS // tokens)
    states = 3 * 4 * backbone(model).layout.vision_width  # tokens, keys and values
    return max(1, int(_SHARE * free_memory(model.device) / (states * tokens)))


def pair_blocks(visuals: Tensor, limit: int, most: int = 0) -> list[slice]:
    """Cut sorted pairs into blocks of at most `limit`.

    Args:
        visuals: visual row of each pair, ascending, [P].
        limit: pairs of a block.
        most: visuals of a block; 0 is any number.

    Returns:
        Slices that cover every pair once. A visual's pairs stay together unless they are more than `limit`; then they
        are cut into blocks of about one size.
    """
    counts = torch.unique_consecutive(visuals.cpu(), return_counts=True)[1].tolist()
    blocks: list[slice] = []
    start = end = held = 0
    for count in counts:
        if end > start and (end - start + count > limit or held == most):
            blocks.append(slice(start, end))
            start, held = end, 0
        end += count
        held += 1
        parts = -(-count // limit)
        if parts > 1:  # it begins a block of its own, since nothing fitted beside it
            bounds = [start + part * count // parts for part in range(parts + 1)]
            blocks += [slice(low, high) for low, high in itertools.pairwise(bounds)]
            start, held = end, 0
    return [*blocks, slice(start, end)] if end > start else blocks
