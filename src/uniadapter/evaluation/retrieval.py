"""Retrieval measured: contrastive similarity first, then the matching head on the best candidates, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import EvaluateConfig, ModelConfig
from uniadapter.data.batches import Batch, share
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.evaluation.recall import dual_softmax, ranks, rerank_order, reranked_ranks, retrieval_metrics
from uniadapter.evaluation.rerank import Progress, rerank
from uniadapter.evaluation.visual_store import encoded_visuals
from uniadapter.model.backbone import adopt, backbone
from uniadapter.model.encoding import encode_text, similarity
from uniadapter.model.features import Texts
from uniadapter.model.frame_attention import frame_weights
from uniadapter.model.tokens import tokenize, warn_of_truncation
from uniadapter.processes.distributed import gather_rows, rank, world_size

SHOWN = 10  # best visuals of a text that a result keeps


@dataclass(frozen=True)
class RetrievalResult:
    """What an evaluation found.

    Args:
        text_to_visual: metrics of text queries; `…_itc` twins are without reranking.
        visual_to_text: metrics of visual queries.
        text_ranks: rank of the right visual for each text, [S], reranked.
        visual_ranks: rank of the best right text for each visual, [V], reranked.
        text_order: the ten best visuals of each text, best first, [S, 10 or fewer].
        frame_weights: what frame-aware attention gave each frame of those, [S, 10 or fewer, T]; their mean is 1. T is 0
            where it is off.
        pairs: fused pairs.
    """

    text_to_visual: dict[str, float]
    visual_to_text: dict[str, float]
    text_ranks: Tensor
    visual_ranks: Tensor
    text_order: Tensor
    frame_weights: Tensor
    pairs: int


@torch.no_grad()
def encode_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], max_tokens: int, batch_size: int
) -> Texts:
    """Encode any number of texts in batches, on the model's device; none give a `Texts` without rows."""
    warn_of_truncation(tokenizer, texts, max_tokens)
    parts = []
    for start in range(0, max(1, len(texts)), batch_size):
        tokens = tokenize(tokenizer, texts[start : start + batch_size], max_tokens)
        parts.append(encode_text(model, tokens.ids.to(model.device), tokens.mask.to(model.device)))
    return Texts.concatenate(parts)


@torch.no_grad()
def evaluate_retrieval(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    split: RetrievalSplit,
    batches: Iterable[Batch],
    settings: ModelConfig,
    config: EvaluateConfig,
    autocast: AbstractContextManager[None] | None = None,
    progress: Progress | None = None,
    distributed: bool = False,
) -> RetrievalResult:
    """Measure retrieval both ways: contrastive similarity, then the matching head on the k best.

    Args:
        model: with the adapters to use selected; put in evaluation mode for the time of this call.
        tokenizer: the base's.
        split: names the captions and which picture each belongs to.
        batches: its visuals, in order; where processes share the work, this one's.
        settings: max_tokens and frame_chunk are used.
        config: the protocol.
        autocast: a context for lower precision.
        progress: told how many pairs are fused.
        distributed: every process of the group is here and takes its share of the visuals; each gets the whole result.

    Returns:
        `RetrievalResult`.
    """
    mine = share(len(split.visuals), rank(), world_size()) if distributed else (0, len(split.visuals))
    with (
        evaluation_mode(model, autocast),
        encoded_visuals(model, batches, mine[1] - mine[0], config, settings.frame_chunk) as visuals,
    ):
        texts = encode_texts(model, tokenizer, split.texts, settings.max_tokens, config.batch_size)
        features, frames = visuals.feature, visuals.frames
        if distributed:
            features, frames = gather_rows(features), gather_rows(frames)
        with torch.autocast(model.device.type, enabled=False):  # rounded similarities would tie
            active = adopt(model).active
            aware = active is not None and active.config.frame_aware
            itc = similarity(model, texts.feature, features, frames if aware else None)
            if config.dual_softmax:
                itc = dual_softmax(itc)
        ordered = rerank(model, texts, visuals, itc, config.k, config.beta, config.block, progress, mine[0])
    itc = itc.cpu()
    owners = torch.tensor(split.text_visual)
    owned = split.visual_texts()
    text_ranks = reranked_ranks(itc, ordered.text_candidates.cpu(), ordered.text_scores.cpu(), owners)
    visual_ranks = reranked_ranks(itc.T, ordered.visual_candidates.cpu(), ordered.visual_scores.cpu(), owned)
    order = rerank_order(itc, ordered.text_candidates.cpu(), ordered.text_scores.cpu())[:, :SHOWN]
    weighed = aware and (config.k > 0 or not backbone(model).layout.fuses)  # else nothing read the frames' weights
    weights = torch.empty(*order.shape, 0)
    if weighed:
        weights = _weights(texts.feature, frames, order, backbone(model).frame_temperature)
    return RetrievalResult(
        _with_itc_metrics(retrieval_metrics(text_ranks), retrieval_metrics(ranks(itc, owners))),
        _with_itc_metrics(retrieval_metrics(visual_ranks), retrieval_metrics(ranks(itc.T, owned))),
        text_ranks,
        visual_ranks,
        order,
        weights,
        ordered.pairs,
    )


def _weights(text_feature: Tensor, frames: Tensor, order: Tensor, temperature: float) -> Tensor:
    """What frame-aware attention gives the frames of each text's best visuals, [S, 10 or fewer, T]."""
    found, seen = text_feature.float().cpu(), frames.float().cpu()
    return torch.stack([frame_weights(found, seen[column], temperature) for column in order.T], dim=1)


def _with_itc_metrics(reranked: dict[str, float], plain: dict[str, float]) -> dict[str, float]:
    return {**reranked, **{f"{name}_itc": value for name, value in plain.items()}}
