"""The text decoder: likelihoods of texts given what they are about, and texts themselves.

A decoder attends to a `Context`: a question's fused states (answers), or a picture's tokens (captions). Its keys and
values are projected once a layer and a context, however many texts are scored against it. Texts that begin alike are
scored as a tree: what precedes a token is computed once a context, whichever answers go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.backbone import Texts, Visuals, fuse, with_time
from uniadapter.grouping import Groups, group_pairs
from uniadapter.inject import AdaptedTextLayer, adopt, attend, text_stacks

LOGIT_ELEMENTS = 1 << 25  # logits held at once (128 MB of float32)


@dataclass(frozen=True)
class Context:
    """What decoders attend to.

    Args:
        states: [Q, K, d].
        mask: 1 for what may be attended to, 0 for padding, [Q, K].
    """

    states: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def select(self, index: Tensor | slice) -> Context:
        """These rows, in this order."""
        return Context(self.states[index], self.mask[index])


def question_context(model: PreTrainedModel, visuals: Visuals, ids: Tensor, mask: Tensor, rows: Tensor) -> Context:
    """Fuse questions with what they ask about.

    Args:
        model: a BLIP with question encoder and answer decoder.
        visuals: V pictures or videos.
        ids: token ids of questions [Q, L]; the first is replaced by [ENC].
        mask: [Q, L], 1 for tokens, 0 for padding on the right.
        rows: visual of each question, [Q].

    Returns:
        The questions' states, [Q, L, d], and their mask: padding is never attended to (transformers' own does).
    """
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


class _Projected:
    """A context's keys and values for every layer of a model's decoder."""

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
        """Cross-attention [P, L, d] of sorted texts in layer `index`, residual and norm included."""
        layer = self.layers[index]
        attention = layer.crossattention.self
        key, value = (groups.repeat(side[groups.visuals]) for side in self.sides[index])
        mask = None if self.mask is None else groups.repeat(self.mask[groups.visuals])
        query = attention.heads(groups.pack(attention.query(attended)))
        dropout = attention.dropout.p if layer.training else 0.0
        packed, _ = attend(query, key, value, mask, dropout, weights=False)
        return layer.crossattention.output(groups.unpack(packed, attended.shape[1]), attended)


def _grouped(rows: Tensor, length: int) -> Groups:
    return group_pairs(torch.stack([torch.arange(len(rows)), rows.cpu()], dim=1), length).to(rows.device)


def decode(model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor) -> Tensor:
    """States of texts that a decoder reads, each given its context and what precedes in it.

    Args:
        model: a BLIP with a text decoder.
        context: of Q rows.
        rows: context of each text, [P].
        ids: token ids [P, L], first [DEC], padded on the right with anything.

    Returns:
        [P, L, d]; states of padding mean nothing.
    """
    projected = _Projected(model, context)
    groups = _grouped(rows, ids.shape[1])
    hidden = model.text_decoder.bert.embeddings(input_ids=ids[groups.texts])
    length, lowest = ids.shape[1], torch.finfo(hidden.dtype).min
    causal = torch.full((length, length), lowest, dtype=hidden.dtype, device=hidden.device).triu(1)
    for index, layer in enumerate(projected.layers):
        attended = layer.attend_self(hidden, causal)
        residual = layer.residual(attended)
        hidden = layer.finish(projected.cross(index, attended, groups), residual, fused=True)
    return groups.restore(hidden)


def text_nll(
    model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1
) -> Tensor:
    """Negative log-likelihood of texts, label-smoothed as the model's config says, summed over tokens: [P].

    Args:
        model: a BLIP with a text decoder.
        context: of Q rows.
        rows: context of each text, [P].
        ids: token ids [P, L], first [DEC], last [SEP].
        mask: [P, L], 1 for tokens.
        given: tokens at the start that are not predicted: [DEC], and the prompt's.
    """
    states = decode(model, context, rows, ids)[:, given - 1 : -1]
    target, keep = ids[:, given:], mask[:, given:].bool()
    with torch.autocast(states.device.type, enabled=False):
        logits = model.text_decoder.cls(states[keep].to(model.text_decoder.cls.predictions.decoder.weight.dtype))
        loss = nn.functional.cross_entropy(
            logits.float(), target[keep], reduction="none", label_smoothing=smoothing(model)
        )
    return loss.new_zeros(keep.shape).masked_scatter(keep, loss).sum(1)


def smoothing(model: PreTrainedModel) -> float:
    """The label smoothing of the decoder's loss (0.1 in BLIP, in training and where answers are ranked)."""
    return float(model.config.text_config.label_smoothing)


@dataclass(frozen=True)
class AnswerTree:
    """Candidate answers, and which of them begin alike.

    Args:
        ids: token ids [A, L], first [DEC], last [SEP], padded with 0.
        lengths: tokens of each, [A].
        nodes: number of the beginning of answer a that ends with its token l, [A, L]; equal beginnings, equal numbers.
    """

    ids: Tensor
    lengths: Tensor
    nodes: Tensor

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> AnswerTree:
        """From token ids of each answer, [DEC] and [SEP] included.

        Raises:
            ValueError: there are none, or one has no token to predict.
        """
        if not answers or min(map(len, answers)) < 2:
            raise ValueError("an answer tree needs answers, each of [DEC] and at least one token more")
        longest = max(map(len, answers))
        ids, nodes = torch.zeros((2, len(answers), longest), dtype=torch.long)
        numbers: dict[tuple[int, ...], int] = {}
        for row, answer in enumerate(answers):
            ids[row, : len(answer)] = torch.tensor(answer)
            for place in range(len(answer)):
                nodes[row, place] = numbers.setdefault(tuple(answer[: place + 1]), len(numbers))
        return cls(ids, torch.tensor([len(a) for a in answers]), nodes)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> AnswerTree:
        """The same on another device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass
class _Level:
    """What one depth of the tree leaves for the next: keys and values [N, H, l + 1, d_h] a layer, place of a pair."""

    keys: list[Tensor]
    values: list[Tensor]
    place: Tensor


@torch.no_grad()
def rank_answers(model: PreTrainedModel, context: Context, tree: AnswerTree, k: int = 0) -> tuple[Tensor, Tensor]:
    """Likelihoods of candidate answers to every question.

    As released: the k candidates whose own first token is the most probable after [DEC], of these the label-smoothed
    negative log-likelihood of the whole answer.

    Args:
        model: a BLIP with an answer decoder.
        context: of Q questions.
        tree: of A answers.
        k: candidates whose likelihood is computed; 0, or more than A, means all.

    Returns:
        Answers by likelihood, [Q, k], the likeliest first, and their negative log-likelihoods, [Q, k].
    """
    walk = _Walk(model, context, tree)
    questions, count = len(context), min(k, len(tree)) or len(tree)
    first = walk.first_token_logits()  # [Q, vocabulary]
    if count < len(tree):
        chosen = first.softmax(-1)[:, tree.ids[:, 1]].topk(count, dim=1).indices
    else:
        chosen = torch.arange(len(tree), device=first.device).expand(questions, -1)
    nll = walk.nll(chosen, first)
    order = torch.argsort(nll, dim=1, stable=True)
    return chosen.gather(1, order), nll.gather(1, order)


class _Walk:
    """One pass down the tree for a batch of questions."""

    def __init__(self, model: PreTrainedModel, context: Context, tree: AnswerTree) -> None:
        self.model, self.tree = model, tree
        self.projected = _Projected(model, context)
        self.questions, self.device = len(context), context.states.device
        start = torch.arange(self.questions, device=self.device)
        self.root = self._states(start, tree.ids[0, 0].expand(self.questions), 0, None, None)

    def _states(
        self, rows: Tensor, ids: Tensor, depth: int, above: _Level | None, parents: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """States [N, d] of tokens at one depth, with keys and values of their whole beginnings."""
        groups = _grouped(rows, 1)
        position = torch.full((len(ids), 1), depth, device=ids.device)
        hidden = self.model.text_decoder.bert.embeddings(input_ids=ids[groups.texts, None], position_ids=position)
        keys, values = [], []
        for index, layer in enumerate(self.projected.layers):
            attention = layer.attention.self
            key, value = attention.keys_values(hidden)
            if above is not None and parents is not None:
                behind = parents[groups.texts]
                key = torch.cat([above.keys[index][behind], key], dim=2)
                value = torch.cat([above.values[index][behind], value], dim=2)
            context, _ = attend(attention.heads(attention.query(hidden)), key, value, None, 0.0, weights=False)
            attended = layer.attention.output(context, hidden)
            residual = layer.residual(attended)
            hidden = layer.finish(self.projected.cross(index, attended, groups), residual, fused=True)
            keys.append(groups.restore(key))
            values.append(groups.restore(value))
        return groups.restore(hidden)[:, 0], keys, values

    def _logits(self, states: Tensor) -> Tensor:
        head = self.model.text_decoder.cls
        with torch.autocast(states.device.type, enabled=False):
            return head(states.to(head.predictions.decoder.weight.dtype)).float()

    def first_token_logits(self) -> Tensor:
        """What comes after [DEC], [Q, vocabulary]."""
        return self._logits(self.root[0])

    def nll(self, chosen: Tensor, first: Tensor) -> Tensor:
        """Negative log-likelihood [Q, k] of the chosen answers [Q, k] of every question."""
        count = chosen.shape[1]
        rows = torch.arange(self.questions, device=self.device).repeat_interleave(count)
        answers = chosen.flatten()
        level = _Level(self.root[1], self.root[2], rows)
        total = _smoothed(first, rows, self.tree.ids[answers, 1], smoothing(self.model))
        lengths, size = self.tree.lengths[answers], int(self.tree.nodes.max()) + 1
        for depth in range(1, int(lengths.max()) - 1):
            going = torch.nonzero(lengths > depth + 1)[:, 0]  # pairs that have a token after this one
            number = rows[going] * size + self.tree.nodes[answers[going], depth]
            _, place = torch.unique(number, return_inverse=True)
            one = torch.empty(int(place.max()) + 1, dtype=torch.long, device=self.device)
            one[place] = torch.arange(len(place), device=self.device)  # any pair that goes through the node
            through = going[one]
            states, keys, values = self._states(
                rows[through], self.tree.ids[answers[through], depth], depth, level, level.place[through]
            )
            total[going] += self._pair_nll(states, place, self.tree.ids[answers[going], depth + 1])
            whole = torch.zeros(len(rows), dtype=torch.long, device=self.device)
            whole[going] = place
            level = _Level(keys, values, whole)
        return total.view(self.questions, count)

    def _pair_nll(self, states: Tensor, place: Tensor, target: Tensor) -> Tensor:
        """Of the next token `target` [P] after node `place` [P]; the logits of a part of the nodes at a time."""
        out = torch.empty(len(place), device=states.device)
        step = max(1, LOGIT_ELEMENTS // self.model.config.text_config.vocab_size)
        for start in range(0, len(states), step):
            inside = torch.nonzero((place >= start) & (place < start + step))[:, 0]
            logits = self._logits(states[start : start + step])
            out[inside] = _smoothed(logits, place[inside] - start, target[inside], smoothing(self.model))
        return out


def _smoothed(logits: Tensor, rows: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Label-smoothed cross-entropy [P] of targets [P] under rows [P] of logits [N, vocabulary]."""
    normal = logits.logsumexp(1)
    mean = normal - logits.mean(1)
    return (1 - smooth) * (normal[rows] - logits[rows, target]) + smooth * mean[rows]
