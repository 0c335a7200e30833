"""BLIP's text decoder: likelihoods of texts, given a context.

The decoder attends to a `Context`: a question's fused states (for answers), or a visual's tokens (for captions). A
context's keys and values are computed once in each layer, however many texts are scored against it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.blip.fusion import fuse, with_time
from uniadapter.model.blip.inject import text_stacks
from uniadapter.model.blip.layers import AdaptedTextLayer
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.features import Context, Texts, Visuals
from uniadapter.model.kernels.attention import layer_attention
from uniadapter.model.kernels.packing import PackedPairs, check_right_padded, left_aligned, pack_pairs


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
    """See `decoding.visual_context`."""
    states = with_time(model, visuals.tokens).flatten(1, 2)
    return Context(states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device))


class ProjectedContext:
    """A context's keys and values in every layer of the decoder.

    Args:
        model: a BLIP with a text decoder.
        context: of Q rows.

    Raises:
        TypeError: the model has no decoder.
    """

    def __init__(self, model: PreTrainedModel, context: Context) -> None:
        adapter_store(model)
        stack = text_stacks(model).get("decoder")
        if stack is None:
            raise TypeError(f"{type(model).__name__} has no text decoder")
        key_delta, value_delta = stack.deltas(context.states)
        self.layers: list[AdaptedTextLayer] = list(stack.layer)
        self.keys_values = [
            layer.crossattention.self.keys_values(context.states, key_delta, value_delta) for layer in self.layers
        ]
        everything = bool(context.mask.all())
        lowest = torch.finfo(context.states.dtype).min
        self.mask = None if everything else (1.0 - context.mask[:, None, None].to(context.states.dtype)) * lowest

    def cross_attention(self, index: int, attended: Tensor, packed: PackedPairs) -> Tensor:
        """Cross-attention of layer `index`, with its residual and norm.

        Args:
            index: of the layer.
            attended: self-attention outputs of the N packed tokens, [N, d].
            packed: the texts and the contexts that they attend to.

        Returns:
            [N, d].
        """
        layer, queries = self.layers[index], packed.tokens
        attention = layer.crossattention.self
        key, value = (queries.repeat(part[packed.visuals]) for part in self.keys_values[index])
        mask = None if self.mask is None else queries.repeat(self.mask[packed.visuals])
        query = attention.split_heads(queries.pack(attention.query(attended)))
        dropout = attention.dropout.p if layer.training else 0.0
        context, _ = layer_attention(query, key, value, mask, dropout)
        return layer.crossattention.output(queries.unpack(context), attended)


def pack_by_context(rows: Tensor, lengths: Tensor, longest: int = 0) -> PackedPairs:
    """Pack texts of `lengths` [P], sorted by the row of the context that each attends to, [P]."""
    pairs = torch.stack([torch.arange(len(rows)), rows.cpu()], dim=1)
    return pack_pairs(pairs, lengths, longest).to(rows.device)


def decode(model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Last states of the decoder, under its causal mask, for texts and the contexts that they attend to.

    Args:
        model: a BLIP with a text decoder.
        context: of Q rows.
        rows: row of the context for each text, [P].
        ids: token ids [P, L], first [DEC], padded on the right with any ids.
        mask: [P, L], 1 for tokens, 0 for padding; None if there is no padding.

    Returns:
        [P, L, d]; states of padding are undefined.
    """
    if mask is not None:
        check_right_padded(mask)
    projected, length = ProjectedContext(model, context), ids.shape[1]
    lengths = torch.full((len(ids),), length) if mask is None else mask.sum(1)
    packed = pack_by_context(rows, lengths, length)
    packing = packed.packing
    hidden = packing.pack(model.text_decoder.bert.embeddings(input_ids=ids[packed.texts]))
    causal = torch.full((length, length), torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=hidden.device)
    causal = causal.triu(1)  # hides the padding behind a text too
    with adapter_store(model).rows(rows[packed.texts][packed.pair_of_token]):
        for index, layer in enumerate(projected.layers):
            attended = layer.attend_self(hidden, packing, causal)
            crossed = projected.cross_attention(index, attended, packed)
            hidden = layer.feed_forward(crossed, layer.query_residual(attended), fused=True)
    return packed.restore(packing.pad(hidden))


def text_nll(
    model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1
) -> Tensor:
    """See `decoding.text_nll`."""
    ids, mask = left_aligned(ids, mask, model.config.text_config.max_position_embeddings)
    states = decode(model, context, rows, ids, mask)[:, given - 1 : -1]
    target, keep = ids[:, given:], mask[:, given:].bool()
    logits = token_logits(model, states[keep])
    with torch.autocast(states.device.type, enabled=False):
        loss = nn.functional.cross_entropy(
            logits, target[keep], reduction="none", label_smoothing=label_smoothing(model)
        )
    return loss.new_zeros(keep.shape).masked_scatter(keep, loss).sum(1)


def token_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Float32 logits [N, vocabulary] of states [N, d], computed in the dtype of the head's weights."""
    head: nn.Module = model.text_decoder.cls  # type: ignore[assignment]
    dtype = next(head.parameters()).dtype
    with torch.autocast(states.device.type, enabled=False):
        logits: Tensor = head(states.to(dtype))
        return logits.float()


def label_smoothing(model: PreTrainedModel) -> float:
    """The label smoothing of the decoder's loss: 0.1 in BLIP, both in training and to rank answers."""
    return float(model.config.text_config.label_smoothing)
