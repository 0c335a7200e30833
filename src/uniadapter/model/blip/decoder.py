"""The text decoder: likelihoods of texts given what they are about, and texts themselves.

A decoder attends to a `Context`: a question's fused states (answers), or a picture's tokens (captions). Its keys and
values are projected once a layer and a context, however many texts are scored against it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.backbone import adopt
from uniadapter.model.blip.fusion import fuse, with_time
from uniadapter.model.blip.inject import text_stacks
from uniadapter.model.blip.layers import AdaptedTextLayer
from uniadapter.model.features import Context, Texts, Visuals
from uniadapter.model.kernels.attention import attend_to
from uniadapter.model.kernels.packing import Groups, group_pairs, left_aligned, refuse_padding_before


def question_context(model: PreTrainedModel, visuals: Visuals, ids: Tensor, mask: Tensor, rows: Tensor) -> Context:
    """See `decoding.question_context`."""
    ids, mask = left_aligned(ids, mask, model.config.text_config.max_position_embeddings)
    longest = int(mask.sum(1).max())
    ids, mask = ids[:, :longest], mask[:, :longest]
    empty = visuals.tokens.new_zeros((*ids.shape, 0))
    texts = Texts(ids, mask, empty, empty[:, 0])
    return Context(
        fuse(model, texts, visuals, torch.stack([torch.arange(len(ids), device=rows.device), rows], 1)), mask
    )


def visual_context(model: PreTrainedModel, visuals: Visuals) -> Context:
    """What a caption decoder attends to: all tokens of a picture or video, [V, T * N, d]."""
    states = with_time(model, visuals.tokens).flatten(1, 2)
    return Context(states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device))


class Projected:
    """A context's keys and values for every layer of a model's decoder.

    Raises:
        TypeError: the model has no decoder.
    """

    def __init__(self, model: PreTrainedModel, context: Context) -> None:
        adopt(model)
        stack = text_stacks(model).get("decoder")
        if stack is None:
            raise TypeError(f"{type(model).__name__} has no text decoder")
        key_delta, value_delta = stack.deltas(context.states)
        self.layers: list[AdaptedTextLayer] = list(stack.layer)
        self.sides = [
            layer.crossattention.self.keys_values(context.states, key_delta, value_delta) for layer in self.layers
        ]
        everything = bool(context.mask.all())
        lowest = torch.finfo(context.states.dtype).min
        self.mask = None if everything else (1.0 - context.mask[:, None, None].to(context.states.dtype)) * lowest

    def cross(self, index: int, attended: Tensor, groups: Groups) -> Tensor:
        """Cross-attention [N, d] of sorted texts' tokens in layer `index`, residual and norm included."""
        layer, queries = self.layers[index], groups.tokens
        attention = layer.crossattention.self
        key, value = (queries.repeat(side[groups.visuals]) for side in self.sides[index])
        mask = None if self.mask is None else queries.repeat(self.mask[groups.visuals])
        query = attention.heads(queries.pack(attention.query(attended)))
        dropout = attention.dropout.p if layer.training else 0.0
        context, _ = attend_to(query, key, value, mask, dropout)
        return layer.crossattention.output(queries.unpack(context), attended)


def grouped(rows: Tensor, lengths: Tensor, longest: int = 0) -> Groups:
    """How texts of lengths [P] are laid out, those of one context behind one another."""
    pairs = torch.stack([torch.arange(len(rows)), rows.cpu()], dim=1)
    return group_pairs(pairs, lengths, longest).to(rows.device)


def decode(model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """States of texts that a decoder reads, each given its context and what precedes in it.

    Args:
        model: a BLIP with a text decoder.
        context: of Q rows.
        rows: context of each text, [P].
        ids: token ids [P, L], first [DEC], padded on the right with anything.
        mask: [P, L], 1 for tokens; None if there is no padding.

    Returns:
        [P, L, d]; padding is not computed, and its states mean nothing.
    """
    if mask is not None:
        refuse_padding_before(mask)
    projected, length = Projected(model, context), ids.shape[1]
    lengths = torch.full((len(ids),), length) if mask is None else mask.sum(1)
    groups = grouped(rows, lengths, length)
    packing = groups.packing
    hidden = packing.pack(model.text_decoder.bert.embeddings(input_ids=ids[groups.texts]))
    causal = torch.full((length, length), torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=hidden.device)
    causal = causal.triu(1)  # hides the padding behind a text too
    for index, layer in enumerate(projected.layers):
        attended = layer.attend_self(hidden, packing, causal)
        hidden = layer.finish(projected.cross(index, attended, groups), layer.residual(attended), fused=True)
    return groups.restore(packing.pad(hidden))


def text_nll(
    model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1
) -> Tensor:
    """See `decoding.text_nll`."""
    ids, mask = left_aligned(ids, mask, model.config.text_config.max_position_embeddings)
    states = decode(model, context, rows, ids, mask)[:, given - 1 : -1]
    target, keep = ids[:, given:], mask[:, given:].bool()
    logits = token_logits(model, states[keep])
    with torch.autocast(states.device.type, enabled=False):
        loss = nn.functional.cross_entropy(logits, target[keep], reduction="none", label_smoothing=smoothing(model))
    return loss.new_zeros(keep.shape).masked_scatter(keep, loss).sum(1)


def token_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Float32 logits [N, vocabulary] of states [N, d]; computed in the precision of the head's weights."""
    head: nn.Module = model.text_decoder.cls  # type: ignore[assignment]
    dtype = next(head.parameters()).dtype
    with torch.autocast(states.device.type, enabled=False):
        logits: Tensor = head(states.to(dtype))
        return logits.float()


def smoothing(model: PreTrainedModel) -> float:
    """The label smoothing of the decoder's loss (0.1 in BLIP, in training and where answers are ranked)."""
    return float(model.config.text_config.label_smoothing)
