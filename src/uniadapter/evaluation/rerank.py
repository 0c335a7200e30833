"""Reranking: candidates of both directions become one list of pairs, fused in blocks, each pair once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.backbone import Texts, Visuals, match
from uniadapter.evaluation.recall import top_candidates

Progress = Callable[[int, int], None]  # pairs done, pairs in all


@dataclass(frozen=True)
class Reranked:
    """Candidates and their scores, both directions.

    Args:
        text_candidates: visuals to rerank for each text, [S, k].
        text_scores: their scores, [S, k].
        visual_candidates: texts to rerank for each visual, [V, k'].
        visual_scores: their scores, [V, k'].
        pairs: how many pairs were fused; one wanted by both directions counts once.
    """

    text_candidates: Tensor
    text_scores: Tensor
    visual_candidates: Tensor
    visual_scores: Tensor
    pairs: int


@torch.no_grad()
def rerank(
    model: PreTrainedModel,
    texts: Texts,
    visuals: Visuals,
    itc: Tensor,
    k: int,
    beta: float = 0.0,
    block: int = 512,
    progress: Progress | None = None,
) -> Reranked:
    """Score the k best candidates of every text and of every visual by the matching head.

    Args:
        model: a BLIP with a matching head.
        texts: S texts.
        visuals: V visuals.
        itc: contrastive similarities, [S, V].
        k: candidates a query, clipped to the gallery.
        beta: score = matching logit + beta * contrastive similarity.
        block: pairs fused at once.
        progress: told after each block.

    Returns:
        `Reranked`; scores are float32.
    """
    text_candidates = top_candidates(itc, k)
    visual_candidates = top_candidates(itc.T, k)
    count = len(texts)
    # One number a pair, visual first, so that sorting groups by visual: what `fuse` shares.
    wanted_by_texts = text_candidates * count + torch.arange(count, device=itc.device)[:, None]
    wanted_by_visuals = torch.arange(len(visuals), device=itc.device)[:, None] * count + visual_candidates
    keys = torch.unique(torch.cat([wanted_by_texts.flatten(), wanted_by_visuals.flatten()]))
    scores = torch.empty(len(keys), device=itc.device)
    for start in range(0, len(keys), block):
        part = keys[start : start + block]
        pairs = torch.stack([part % count, part // count], dim=1)
        scores[start : start + block] = match(model, texts, visuals, pairs)[:, 1].float()
        if progress is not None:
            progress(min(start + block, len(keys)), len(keys))

    def look_up(wanted: Tensor) -> Tensor:
        return scores[torch.searchsorted(keys, wanted)]

    return Reranked(
        text_candidates,
        look_up(wanted_by_texts) + beta * itc.gather(1, text_candidates),
        visual_candidates,
        look_up(wanted_by_visuals) + beta * itc.T.gather(1, visual_candidates),
        len(keys),
    )
