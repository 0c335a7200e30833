"""A batch of pairs some at a time: encoded, and matched, as the whole would be, with the activations of a part alone.

A contrastive loss needs the features of all pairs at once, but not what the encoders computed on the way to them. So
each part is encoded without keeping that, and again when the gradients of its features are known (gradient caching,
arXiv 2101.06983). Here it is one graph, of which parts are recomputed in the backward pass: losses, gradients, their
exchange between processes, precision and accumulation are those of the whole batch. What grows with the batch are
features and, with matching, the visuals' tokens and their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.evaluation.blocks import pair_blocks
from uniadapter.model.encoding import encode_text, encode_visual, match
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.recomputing import recomputed
from uniadapter.model.tokens import TokenBatch
from uniadapter.objectives.momentum import Momentum


@dataclass(frozen=True)
class EncodedPairs:
    """B pairs of a visual and a text.

    Args:
        visuals: B visuals; without tokens if parts were encoded for contrast alone.
        texts: B texts; without states if they were encoded in parts, since matching does not use them.
        targets: the momentum encoder's features of visuals and texts, [B, e] each; None without one.
    """

    visuals: Visuals
    texts: Texts
    targets: tuple[Tensor, Tensor] | None = None


def encode_pairs(
    model: PreTrainedModel,
    frames: Tensor,
    tokens: TokenBatch,
    momentum: Momentum | None,
    chunk: int = 0,
    at_once: int = 0,
    matched: bool = True,
) -> EncodedPairs:
    """Encode pairs, by the momentum encoder too.

    Args:
        model: of any family.
        frames: normalised pixels [B, T, 3, H, W].
        tokens: of the B texts.
        momentum: encodes the targets of the contrastive loss; None for none.
        chunk: frames encoded at once; 0 means all.
        at_once: pairs encoded at once; more are encoded in parts, whose activations are computed again in the backward
            pass. 0 means all.
        matched: whether the visuals' tokens are needed.
    """
    ids, mask = tokens.ids, tokens.mask

    def targets(own: slice, stem: Any) -> tuple[Tensor, Tensor] | None:
        return None if momentum is None else momentum.features(frames[own], ids[own], mask[own], chunk, stem)

    if not 0 < at_once < len(frames):
        every = slice(None)
        stem = None if momentum is None else momentum.stem(frames, chunk)
        visuals = encode_visual(model, frames, chunk, stem)
        return EncodedPairs(visuals, encode_text(model, ids, mask), targets(every, stem))

    def encode(frames: Tensor, ids: Tensor, mask: Tensor) -> tuple[Visuals, Texts]:
        visuals, texts = encode_visual(model, frames, chunk), encode_text(model, ids, mask)
        if not matched:
            visuals = replace(visuals, tokens=visuals.tokens.new_zeros((*visuals.tokens.shape[:2], 0, 0)))
        return visuals, replace(texts, states=texts.states.new_zeros((*texts.ids.shape, 0)))

    parts, aims = [], []
    for low in range(0, len(frames), at_once):
        own = slice(low, low + at_once)
        parts.append(recomputed(model, encode, frames[own], ids[own], mask[own]))
        aims.append(targets(own, None))
    visual, text = zip(*parts, strict=True)
    known = [aim for aim in aims if aim is not None]
    aim = tuple(map(torch.cat, zip(*known, strict=True))) if known else None
    return EncodedPairs(Visuals.concatenate(visual), Texts.concatenate(text), aim)  # type: ignore[arg-type]


def match_pairs(model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, at_once: int = 0) -> Tensor:
    """Logits of the matching head for pairs, as `match`; in parts, whose activations are computed again.

    Args:
        model: with a fused encoder.
        texts: S texts; their states are not used.
        visuals: V visuals.
        pairs: [P, 2] of (text row, visual row).
        at_once: visuals of a part; it has at most three times as many pairs. 0 takes all pairs at once.

    Returns:
        [P, 2].
    """
    if not 0 < 3 * at_once < len(pairs):
        return match(model, texts, visuals, pairs)
    order = torch.argsort(pairs[:, 1], stable=True)
    tokens = visuals.tokens.unbind()  # rows, so that the gradient of a part is not as large as all tokens

    def of_some(pairs: Tensor) -> Tensor:
        (rows, text), (columns, visual) = (torch.unique(one, return_inverse=True) for one in pairs.unbind(1))
        some = Visuals(
            torch.stack([tokens[column] for column in columns.tolist()]),
            visuals.feature[columns],
            visuals.frames[columns],
        )
        return match(model, texts.select(rows), some, torch.stack([text, visual], dim=1))

    by_visual = pairs[order]
    blocks = pair_blocks(by_visual[:, 1], 3 * at_once, at_once)
    logits = torch.cat([recomputed(model, of_some, by_visual[block]) for block in blocks])
    return logits[torch.argsort(order)]
