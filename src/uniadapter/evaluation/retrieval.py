"""Evaluate retrieval in both directions: contrastive similarity, then reranking by the matching head."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import EvaluateConfig, ModelConfig
from uniadapter.data.batches import Batch, shard_bounds
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.evaluation.recall import dual_softmax, ranks, rerank_order, reranked_ranks, retrieval_metrics
from uniadapter.evaluation.rerank import Progress, rerank
from uniadapter.evaluation.visual_store import encoded_visuals
from uniadapter.model.dispatch import adapter_store, backbone
from uniadapter.model.encoding import encode_text, similarity
from uniadapter.model.features import Texts
from uniadapter.model.frame_attention import frame_weights
from uniadapter.model.pair_rows import arranged
from uniadapter.model.tokens import tokenize, warn_of_truncation
from uniadapter.processes.distributed import gather_rows, rank, world_size

SHOWN = 10  # most visuals of a text that a result keeps


@dataclass(frozen=True)
class RetrievalResult:
    """The result of a retrieval evaluation.

    Args:
        text_to_visual: metrics of text queries, see `retrieval_metrics`; keys with `_itc` are without reranking.
        visual_to_text: metrics of visual queries.
        text_ranks: rank of the right visual for each text after reranking, [S].
        visual_ranks: rank of the best right text for each visual after reranking, [V].
        text_order: the ten best visuals of each text, best first, [S, 10 or fewer].
        frame_weights: weights of their frames in frame-aware attention, [S, 10 or fewer, T], with mean 1; T is 0 if it
            is off.
        pairs: number of fused pairs.
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
    """Tokenise and encode texts in batches.

    Args:
        model: with a text encoder.
        tokenizer: the base's.
        texts: S texts; S may be 0.
        max_tokens: longer texts are truncated, with a warning in the log.
        batch_size: texts encoded at once.

    Returns:
        The texts on the model's device.
    """
    warn_of_truncation(tokenizer, texts, max_tokens)
    parts = []
    for start in range(0, max(1, len(texts)), batch_size):
        tokens = tokenize(tokenizer, texts[start : start + batch_size], max_tokens)
        with arranged(model, slice(start, start + batch_size)):
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
    """Evaluate retrieval in both directions: contrastive similarity, then the matching head on the k best.

    Args:
        model: with the adapter set to use selected; in evaluation mode during this call.
        tokenizer: the base's.
        split: captions, and the visual of each.
        batches: its visuals, in order; in distributed evaluation, this process's share.
        settings: max_tokens and frame_chunk are used.
        config: of the evaluation.
        autocast: a context manager for lower precision.
        progress: called with the number of fused pairs and of all.
        distributed: all processes call this function, each with its share of the visuals; each gets the whole result.

    Returns:
        Metrics, ranks and the best visuals of each text.
    """
    mine = shard_bounds(len(split.visuals), rank(), world_size()) if distributed else (0, len(split.visuals))
    with (
        evaluation_mode(model, autocast),
        encoded_visuals(model, batches, mine[1] - mine[0], config, settings.frame_chunk) as visuals,
    ):
        texts = encode_texts(model, tokenizer, split.texts, settings.max_tokens, config.batch_size)
        features, frames = visuals.feature, visuals.frames
        if distributed:
            features, frames = gather_rows(features), gather_rows(frames)
        with torch.autocast(model.device.type, enabled=False):  # rounded similarities would be equal
            active = adapter_store(model).single
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
    weighed = aware and (config.k > 0 or not backbone(model).layout.fuses)  # else frame weights are not used
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
