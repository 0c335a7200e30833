"""Rank a list of answers by likelihood.

The answers form a prefix tree: for each question, a prefix that several answers share is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.adapted_layers import plus
from uniadapter.model.blip.decoder import ProjectedContext, label_smoothing, pack_by_context, token_logits
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.features import AnswerTree, Context
from uniadapter.model.kernels.attention import layer_attention
from uniadapter.model.kernels.packing import PackedPairs

LOGIT_ELEMENTS = 1 << 25  # logits held at once (128 MB of float32)


@dataclass
class _TreeLevel:
    """State at one depth of the tree, for N nodes (each of one question) and the pairs of question and answer.

    Args:
        keys: of each layer, for the whole prefixes, [N, H, depth + 1, d_h].
        values: the same.
        place: node of each pair.
    """

    keys: list[Tensor]
    values: list[Tensor]
    place: Tensor


@torch.no_grad()
def rank_answers(model: PreTrainedModel, context: Context, tree: AnswerTree, k: int = 0) -> tuple[Tensor, Tensor]:
    """See `decoding.rank_answers`.

    As in BLIP's code, the k candidates are those whose first token is the most probable after [DEC], and likelihoods
    are label-smoothed.

    Args:
        model: a BLIP with an answer decoder.
        context: of Q questions.
        tree: of A answers.
        k: candidates whose likelihood is computed; 0, or more than A, means all.

    Returns:
        Indices of answers, the likeliest first, and their negative log-likelihoods, both [Q, k].
    """
    scorer = _TreeScorer(model, context, tree)
    questions, count = len(context), min(k, len(tree)) or len(tree)
    first = scorer.first_token_logits()  # [Q, vocabulary]
    if count < len(tree):
        chosen = first.softmax(-1)[:, tree.ids[:, 1]].topk(count, dim=1).indices
    else:
        chosen = torch.arange(len(tree), device=first.device).expand(questions, -1)
    nll = scorer.nll(chosen, first)
    order = torch.argsort(nll, dim=1, stable=True)
    return chosen.gather(1, order), nll.gather(1, order)


class _TreeScorer:
    """Scores the answers of a tree for a batch of questions, depth by depth."""

    def __init__(self, model: PreTrainedModel, context: Context, tree: AnswerTree) -> None:
        self.model, self.tree = model, tree
        self.projected = ProjectedContext(model, context)
        self.questions, self.device = len(context), context.states.device
        start = torch.arange(self.questions, device=self.device)
        self.root = self._states(start, tree.ids[0, 0].expand(self.questions), 0, None, None)

    def _states(
        self, rows: Tensor, ids: Tensor, depth: int, above: _TreeLevel | None, parents: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """States [N, d] of nodes at one depth, and keys and values of their whole prefixes.

        Args:
            rows: question of each node, [N].
            ids: its token, [N].
            depth: position of the tokens.
            above: the previous depth, None at the root.
            parents: each node's parent among the nodes above, [N].
        """
        packed = pack_by_context(rows, torch.ones(len(rows), dtype=torch.long))
        position = torch.full((len(ids), 1), depth, device=ids.device)
        hidden = self.model.text_decoder.bert.embeddings(input_ids=ids[packed.texts, None], position_ids=position)
        with adapter_store(self.model).rows(rows[packed.texts]):
            return self._through_layers(packed, hidden, above, parents)

    def _through_layers(
        self, packed: PackedPairs, hidden: Tensor, above: _TreeLevel | None, parents: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The same from the embeddings of the packed nodes, [N, 1, d]."""
        keys, values = [], []
        for index, layer in enumerate(self.projected.layers):
            attention = layer.attention.self
            query_delta, *deltas = layer.self_deltas(hidden)
            key, value = attention.keys_values(hidden, *deltas)
            if above is not None and parents is not None:
                prefixes = parents[packed.texts]
                key = torch.cat([above.keys[index][prefixes], key], dim=2)
                value = torch.cat([above.values[index][prefixes], value], dim=2)
            query = attention.split_heads(plus(attention.query(hidden), query_delta))
            context, _ = layer_attention(query, key, value, None, 0.0)
            attended = layer.attention.output(context, hidden)
            residual = layer.query_residual(attended)
            crossed = self.projected.cross_attention(index, attended[:, 0], packed)
            hidden = layer.feed_forward(crossed[:, None], residual, fused=True)
            keys.append(packed.restore(key))
            values.append(packed.restore(value))
        return packed.restore(hidden)[:, 0], keys, values

    def first_token_logits(self) -> Tensor:
        """Logits of the token after [DEC], [Q, vocabulary]."""
        return token_logits(self.model, self.root[0])

    def nll(self, chosen: Tensor, first: Tensor) -> Tensor:
        """Negative log-likelihood [Q, k] of the chosen answers [Q, k] of every question."""
        count = chosen.shape[1]
        rows = torch.arange(self.questions, device=self.device).repeat_interleave(count)
        answers = chosen.flatten()
        level = _TreeLevel(self.root[1], self.root[2], rows)
        total = _smoothed(first, rows, self.tree.ids[answers, 1], label_smoothing(self.model))
        lengths, size = self.tree.lengths[answers], int(self.tree.nodes.max()) + 1
        for depth in range(1, int(lengths.max()) - 1):
            going = torch.nonzero(lengths > depth + 1)[:, 0]  # pairs that have a token after this one
            number = rows[going] * size + self.tree.nodes[answers[going], depth]
            _, place = torch.unique(number, return_inverse=True)
            one = torch.empty(int(place.max()) + 1, dtype=torch.long, device=self.device)
            one[place] = torch.arange(len(place), device=self.device)  # any pair whose answer has that prefix
            through = going[one]
            states, keys, values = self._states(
                rows[through], self.tree.ids[answers[through], depth], depth, level, level.place[through]
            )
            total[going] += self._pair_nll(states, place, self.tree.ids[answers[going], depth + 1])
            whole = torch.zeros(len(rows), dtype=torch.long, device=self.device)
            whole[going] = place
            level = _TreeLevel(keys, values, whole)
        return total.view(self.questions, count)

    def _pair_nll(self, states: Tensor, place: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood [P] of the tokens `target` [P] after the nodes `place` [P], in chunks of nodes."""
        out = torch.empty(len(place), device=states.device)
        step = max(1, LOGIT_ELEMENTS // self.model.config.text_config.vocab_size)
        for start in range(0, len(states), step):
            inside = torch.nonzero((place >= start) & (place < start + step))[:, 0]
            logits = token_logits(self.model, states[start : start + step])
            out[inside] = _smoothed(logits, place[inside] - start, target[inside], label_smoothing(self.model))
        return out


def _smoothed(logits: Tensor, rows: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Label-smoothed cross-entropy [P] of targets [P] under rows [P] of logits [N, vocabulary]."""
    normal = logits.logsumexp(1)
    mean = normal - logits.mean(1)
    return (1 - smooth) * (normal[rows] - logits[rows, target]) + smooth * mean[rows]
