"""Inputs and outputs of backbones: encoded visuals and texts, contexts of decoders, and lists of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows", bound="_RowBatch")


class _RowBatch:
    """A batch whose fields are tensors with one row for each item."""

    def select(self: Rows, index: Tensor | Sequence[int] | slice) -> Rows:
        """The rows of these indices, in this order."""
        if not isinstance(index, (slice, Tensor)):
            index = torch.tensor(list(index), dtype=torch.int64)  # also where there are none
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})  # type: ignore[arg-type]

    def to(self: Rows, device: torch.device | str) -> Rows:
        """The same on another device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.feature)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        feature: Tensor = self.feature  # type: ignore[attr-defined]
        shapes = ", ".join(f"{f.name}={list(getattr(self, f.name).shape)}" for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({shapes}, {str(feature.dtype).removeprefix('torch.')} on {feature.device})"


@dataclass(frozen=True, repr=False)
class Visuals(_RowBatch):
    """Encoded pictures or videos.

    Args:
        tokens: last states of the visual encoder, [V, T, N, d], without a temporal embedding; for BLIP, the N tokens of
            a frame are CLS and the patches.
        feature: unit-length features for the contrastive loss, [V, e]; e = 0 in models without a projection.
        frames: the same for each frame, [V, T, e].
    """

    tokens: Tensor
    feature: Tensor
    frames: Tensor

    @staticmethod
    def concatenate(parts: Sequence[Visuals]) -> Visuals:
        """One batch from several that have the same number of frames."""
        return Visuals(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Visuals)))


@dataclass(frozen=True, repr=False)
class Texts(_RowBatch):
    """Encoded texts.

    Args:
        ids: token ids, [S, L], starting with the tokenizer's own first token.
        mask: 1 for tokens, 0 for padding, [S, L]; padding is on the right.
        states: last states of the text encoder, without any visual, [S, L, d].
        feature: unit-length features for the contrastive loss, [S, e].
    """

    ids: Tensor
    mask: Tensor
    states: Tensor
    feature: Tensor

    @staticmethod
    def concatenate(parts: Sequence[Texts]) -> Texts:
        """One batch from several, padded to the longest text."""
        longest = max(p.ids.shape[1] for p in parts)

        def joined(name: str) -> Tensor:
            values: list[Tensor] = [getattr(p, name) for p in parts]
            padding = [v.new_zeros((len(v), longest - v.shape[1], *v.shape[2:])) for v in values]
            return torch.cat([torch.cat(both, dim=1) for both in zip(values, padding, strict=True)])

        return Texts(joined("ids"), joined("mask"), joined("states"), torch.cat([p.feature for p in parts]))


@dataclass(frozen=True)
class FusionCache:
    """Output of the first fused layer's self-attention, which depends on the texts and the active set; for `fuse`.

    Args:
        states: of the tokens of all texts, packed without padding, [N, d].
        starts: index of each text's first token, [S].
        by: what acted in it: an adapter set with adapters in self-attention, those of rows, or None for the base alone.
    """

    states: Tensor
    starts: Tensor
    by: object = field(default=None, kw_only=True)

    def take(self, texts: Tensor, places: Tensor) -> Tensor:
        """States [N, d] of tokens given by their text [N] and their position in it [N]."""
        return self.states.index_select(0, self.starts[texts] + places)


@dataclass(frozen=True)
class Context:
    """What a decoder attends to: the states of questions, or of visuals.

    Args:
        states: [Q, K, d].
        mask: 1 for states, 0 for padding, [Q, K].
    """

    states: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def select(self, index: Tensor | slice) -> Context:
        """The rows of these indices, in this order."""
        return Context(self.states[index], self.mask[index])


@dataclass(frozen=True)
class AnswerTree:
    """Candidate answers as a prefix tree (trie), so that a shared prefix is computed once.

    Args:
        ids: token ids [A, L], from the start token to the end token ([DEC] and [SEP] for BLIP), padded with 0.
        lengths: number of tokens of each answer, [A].
        nodes: number of the tree's node for the first l + 1 tokens of answer a, [A, L]; equal prefixes share a node.
    """

    ids: Tensor
    lengths: Tensor
    nodes: Tensor

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> AnswerTree:
        """Build the tree from the token ids of each answer, start and end token included.

        Raises:
            ValueError: there are no answers, or one has no token to predict.
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
