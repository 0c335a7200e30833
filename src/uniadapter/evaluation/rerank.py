"""Reranking: candidates of both directions become one list of pairs, fused in blocks, each pair once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.evaluation.blocks import block_pairs, block_visuals, pair_blocks
from uniadapter.evaluation.recall import top_candidates
from uniadapter.model.encoding import begin_fusion, match
from uniadapter.model.features import Texts, Visuals
from uniadapter.processes.distributed import gather_rows

Progress = Callable[[int, int], None]  # pairs done, pairs in all


@dataclass(frozen=True)
class RerankResult:
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
    block: int = 0,
    progress: Progress | None = None,
    first: int = 0,
) -> RerankResult:
    """Score the k best candidates of every text and of every visual by the matching head.

    Args:
        model: a BLIP with a matching head.
        texts: S texts.
        visuals: V visuals; where processes share the work, this one's, a contiguous part of them.
        itc: contrastive similarities, [S, V].
        k: candidates a query, clipped to the gallery.
        beta: score = matching logit + beta * contrastive similarity.
        block: pairs fused at once; 0 takes what the device has room for.
        progress: told after each block how many of this process's pairs are done.
        first: how many visuals come before this process's.

    Returns:
        `RerankResult`; scores are float32.
    """
    text_candidates = top_candidates(itc, k)
    visual_candidates = top_candidates(itc.T, k)
    count = len(texts)
    # One number a pair, visual first, so that sorting groups by visual: what `fuse` shares.
    wanted_by_texts = text_candidates * count + torch.arange(count, device=itc.device)[:, None]
    wanted_by_visuals = torch.arange(itc.shape[1], device=itc.device)[:, None] * count + visual_candidates
    keys = torch.unique(torch.cat([wanted_by_texts.flatten(), wanted_by_visuals.flatten()]))
    own = keys[(keys >= first * count) & (keys < (first + len(visuals)) * count)]
    limit = block or block_pairs(model, float(texts.mask.sum()) / max(1, count))
    cache = begin_fusion(model, texts) if len(keys) else None
    part_scores = torch.empty(len(own), device=itc.device)
    most = block_visuals(model, visuals.tokens.shape[1] * visuals.tokens.shape[2])
    for part in pair_blocks(own // count, limit, most):
        pairs = torch.stack([own[part] % count, own[part] // count - first], dim=1)
        part_scores[part] = match(model, texts, visuals, pairs, cache)[:, 1].float()
        if progress is not None:
            progress(part.stop, len(own))
    scores = gather_rows(part_scores) if len(visuals) < itc.shape[1] else part_scores

    def look_up(wanted: Tensor) -> Tensor:
        return scores[torch.searchsorted(keys, wanted)]

    return RerankResult(
        text_candidates,
        look_up(wanted_by_texts) + beta * itc.gather(1, text_candidates),
        visual_candidates,
        look_up(wanted_by_visuals) + beta * itc.T.gather(1, visual_candidates),
        len(keys),
    )
