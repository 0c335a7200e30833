"""Where the words of a text look in a picture or video: the fused encoder's cross-attention as maps over patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.model.encoding import fuse_with_weights
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.pair_rows import pair_weights


@dataclass(frozen=True, repr=False)
class AttentionMap:
    """Where each word of a text looks in a picture or video.

    Args:
        words: of the text, in order, [W].
        patches: share of a word's attention that each patch gets, [W, T, rows, columns], the mean over heads; a word of
            several tokens has their mean. With what CLS gets, a word's shares sum to 1.
        frames: share of a word's attention that each frame gets, CLS included, [W, T]; sums to 1 over T.
        frame_weights: what frame-aware attention multiplies each frame's keys by for this text, [T], mean 1; ones
            where it is off.
    """

    words: list[str]
    patches: Tensor
    frames: Tensor
    frame_weights: Tensor

    def __repr__(self) -> str:
        return f"AttentionMap(words={self.words}, patches={list(self.patches.shape)})"


@torch.no_grad()
def attention_by_layer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Texts, visuals: Visuals, pairs: Tensor
) -> list[list[AttentionMap]]:
    """Attention maps of pairs of a text and a visual in each layer, with the active adapter set.

    Args:
        model: with a fused encoder whose texts attend to visual tokens, in evaluation mode.
        tokenizer: the base's, a WordPiece.
        texts: S texts.
        visuals: V visuals of square pictures.
        pairs: [P, 2] of (text row, visual row), at least one.

    Returns:
        For each pair a map for each layer, the first layer's first.

    Raises:
        TypeError: the model's texts do not attend to visual tokens.
        ValueError: `pairs` is empty or points outside.
    """
    _, weights = fuse_with_weights(model, texts, visuals, pairs)
    shares = torch.stack([one.float().mean(1) for one in weights], 1).cpu()  # [P, layers, L, T, N]
    side = math.isqrt(shares.shape[-1] - 1)
    found = []
    for (text, visual), layers in zip(pairs.tolist(), shares, strict=True):
        words, places = _words(tokenizer, texts.ids[text][texts.mask[text].bool()].tolist())
        weighed = _frame_weights(model, texts, visuals, text, visual)
        of_words = torch.stack([layers[:, own].mean(1) for own in places], 1) if places else layers[:, :0]
        maps, frames = of_words[..., 1:].unflatten(-1, (side, -1)), of_words.sum(-1)
        found.append([AttentionMap(words, *both, weighed) for both in zip(maps, frames, strict=True)])
    return found


def mean_map(layers: Sequence[AttentionMap]) -> AttentionMap:
    """The mean of one text's maps over layers."""
    patches, frames = (torch.stack([getattr(one, name) for one in layers]).mean(0) for name in ("patches", "frames"))
    return replace(layers[0], patches=patches, frames=frames)


def _frame_weights(model: PreTrainedModel, texts: Texts, visuals: Visuals, text: int, visual: int) -> Tensor:
    """As `fuse` takes them, [T]; ones where frame-aware attention is off."""
    found = pair_weights(model, texts, visuals, torch.tensor([text]), torch.tensor([visual]))
    return torch.ones(visuals.tokens.shape[1]) if found is None else found[0].float().cpu()


def _words(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[list[str], list[list[int]]]:
    """The words of a text and the places of their tokens; special tokens are left out, unknown words are not."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    words: list[str] = []
    places: list[list[int]] = []
    for place, (number, token) in enumerate(zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)):
        if not place or number in special:  # the first token is [ENC] where texts are fused
            continue
        if token.startswith("##") and words:
            words[-1] += token.removeprefix("##")
            places[-1].append(place)
        else:
            words.append(token)
            places.append([place])
    return words, places
