"""Rows in groups: blocks of pairs that fit into memory, if possible with all of a visual; rows of equal values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.dispatch import backbone

T = TypeVar("T")

_CPU_TOKENS = 1536  # text tokens of a block on a CPU: more is hardly faster, and costs memory
_CPU_VISUAL_TOKENS = 16384  # most visual tokens of a block: 50 MB for BLIP-base, and 100 MB of keys and values
_SHARE = 0.25  # part of a GPU's free memory for the states of a block


def free_memory(device: torch.device) -> int:
    """Free memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def block_pairs(model: PreTrainedModel, tokens: float) -> int:
    """Number of pairs to fuse at once, by the memory of the model's device.

    Args:
        model: with a fused encoder.
        tokens: mean number of tokens of a text.
    """
    features = backbone(model).layout.features
    queries = features if features > 1 else 0  # where a visual has several, so many queries stand beside each text
    return max(1, int(_fitting_tokens(model) / max(tokens + queries, 1.0)))


def block_questions(model: PreTrainedModel, tokens: float) -> int:
    """Number of questions to rank answers for at once, by the memory of the model's device.

    Args:
        model: with an answer decoder.
        tokens: number of tokens of all answers to a question; shared prefixes count once.
    """
    layout = backbone(model).layout
    kept = 4 * layout.text_layers * layout.text_width  # keys and values of every layer, at two depths of the tree
    return max(1, int(_fitting_tokens(model, kept) / max(tokens, 1.0)))


def _fitting_tokens(model: PreTrainedModel, kept: int = 0) -> int:
    """Number of text tokens that fit at once, if each keeps `kept` numbers besides the states of a layer."""
    if model.device.type == "cpu":
        return _CPU_TOKENS
    layout = backbone(model).layout
    width = 12 * layout.text_width + 2 * layout.feed_forward  # numbers that exist at once for a token
    return int(_SHARE * free_memory(model.device) / (4 * (width + kept)))


def block_visuals(model: PreTrainedModel, tokens: int) -> int:
    """Number of visuals in a block, by the memory of the model's device.

    Args:
        model: with a fused encoder.
        tokens: number of tokens of a visual; 0 if none are kept.
    """
    tokens = max(1, tokens)
    if model.device.type == "cpu":
        return max(1, _CPU_VISUAL_TOKENS // tokens)
    states = 3 * 4 * backbone(model).layout.vision_width  # tokens, keys and values
    return max(1, int(_SHARE * free_memory(model.device) / (states * tokens)))


def pair_blocks(visuals: Tensor, limit: int, most: int = 0) -> list[slice]:
    """Split pairs, sorted by visual, into blocks.

    Args:
        visuals: visual row of each pair, ascending, [P].
        limit: most pairs of a block.
        most: most visuals of a block; 0 is any number.

    Returns:
        Slices that cover every pair once. All pairs of a visual are in one block, unless they are more than `limit`;
        then they are split evenly.
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
        if parts > 1:  # it starts a new block, since it did not fit into the last one
            bounds = [start + part * count // parts for part in range(parts + 1)]
            blocks += [slice(low, high) for low, high in itertools.pairwise(bounds)]
            start, held = end, 0
    return [*blocks, slice(start, end)] if end > start else blocks


def rows_by(values: Sequence[T]) -> dict[T, list[int]]:
    """The rows that have each value, in the order in which the values come first."""
    found: dict[T, list[int]] = {}
    for row, value in enumerate(values):
        found.setdefault(value, []).append(row)
    return found
