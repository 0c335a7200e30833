"""Reranking: the candidates of both directions form one list of pairs, which are fused in blocks, each pair once."""

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
    """Candidates and their scores in both directions.

    Args:
        text_candidates: candidate visuals of each text, [S, k].
        text_scores: their scores, [S, k].
        visual_candidates: candidate texts of each visual, [V, k'].
        visual_scores: their scores, [V, k'].
        pairs: number of fused pairs; one that both directions need counts once.
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
    """Score the k most similar visuals of every text, and texts of every visual, by the matching head.

    The protocol is BLIP's (arXiv 2201.12086).

    Args:
        model: with a fused encoder and a matching head.
        texts: S texts.
        visuals: V visuals; in distributed evaluation, this process's share, a contiguous part of them.
        itc: contrastive similarities, [S, V].
        k: candidates of a query, limited to the gallery's size.
        beta: score = matching logit + beta * contrastive similarity.
        block: pairs fused at once; 0 chooses by the device's memory.
        progress: called after each block with the number of this process's pairs that are done, and of all.
        first: index of this process's first visual among the V.

    Returns:
        Candidates and scores (float32), of all visuals on every process.
    """
    text_candidates = top_candidates(itc, k)
    visual_candidates = top_candidates(itc.T, k)
    count = len(texts)
    # One number for each pair, visual first: sorted by visual, `fuse` computes keys and values once.
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
