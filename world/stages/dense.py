"""Dense signals of the second stage: what single words of a fused text must find in the picture.

Matching alone learns no relation in hours (a pair's one bit says too little): so a name's word looks at the patches
that show it and knows where it lies, a relation's word knows how its two things lie to one another, a question's word
finds what it asks for. None of these heads is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world.pictures.grounds import SIZE
from world.stages.fused import Fused
from world.stages.vision import WIDTH
from world.texts.names import KINDS, Lexicon
from world.texts.saying import Saying
from world.texts.truths import Scene

NAMING, RELATING = 0, 1  # layers: words find what they name; the next layer relates what they found
ORDER = {kind: number for number, kind in enumerate(KINDS)}
LOOKING = 2  # heads of a layer's cross-attention that are told where to look


class DenseHeads(nn.Module):
    """What is read off the words' states."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Linear(WIDTH, 3)  # shown or not, x, y
        self.turn = nn.Linear(WIDTH, 2)  # dx, dy
        self.spot = nn.Linear(WIDTH, 2)  # x, y


@dataclass
class Words:
    """Marks of a batch's texts, as indices: canvas, text of the canvas, place in the text, concepts.

    Args:
        named: words of names [K, 4]: canvas, text, place, concept.
        turns: words that relate [K, 5]: canvas, text, place, concept a, concept b.
        spots: words that place [K, 4].
        looks: words that ask [K, 4].
        kinds: words that name a kind [K, 4], the last its number in `KINDS`.
        grounds: words that name the ground's colour [K, 3].
    """

    named: Tensor
    turns: Tensor
    spots: Tensor
    looks: Tensor
    kinds: Tensor
    grounds: Tensor

    @staticmethod
    def of(sayings: list[list[Saying]]) -> Words:
        """Marks of the texts of each canvas; places count [CLS]."""
        named, turns, spots, looks, kinds, grounds = [], [], [], [], [], []
        for row, texts in enumerate(sayings):
            for column, saying in enumerate(texts):
                named += [(row, column, place + 1, c) for place, c in enumerate(saying.named) if c >= 0]
                turns += [(row, column, place + 1, a, b) for place, a, b in saying.turns]
                spots += [(row, column, place + 1, a) for place, a in saying.spots]
                looks += [(row, column, place + 1, a) for place, a in saying.looks]
                kinds += [(row, column, place + 1, ORDER[kind]) for place, kind in saying.kinds]
                grounds += [(row, column, place + 1) for place in saying.grounds]
        wide = zip((named, turns, spots, looks, kinds, grounds), (4, 5, 4, 4, 4, 3), strict=True)
        return Words(*(torch.tensor(rows, dtype=torch.long).view(-1, width) for rows, width in wide))


def places(scenes: list[Scene], concepts: int) -> Tensor:
    """[B, C, 3]: 1 where a canvas shows a concept, and its middle from -1 to 1."""
    out = torch.zeros(len(scenes), concepts, 3)
    for row, scene in enumerate(scenes):
        for concept, x, y in scene.things:
            out[row, concept] = torch.tensor([1.0, 2 * x / SIZE - 1, 2 * y / SIZE - 1])
    return out


def looked(scores: Tensor, words: Tensor, patches: Tensor) -> Tensor:
    """Cross-entropy of where words look: at their patches, at the class token where there are none.

    Args:
        scores: before the softmax [B, heads, T, L, 1 + N].
        words: canvas, text and place of each [K, 3 or more].
        patches: what each should look at [K, N], boolean.
    """
    row, text, place = words[:, :3].unbind(1)
    wanted = F.pad(patches.float(), (1, 0))
    wanted[:, 0] = (wanted.sum(1) == 0).float()
    wanted = wanted / wanted.sum(1, keepdim=True)
    found = scores[row, :LOOKING, text, place].float().log_softmax(-1)
    return -(wanted[:, None] * found).sum(-1).sum() / LOOKING / max(1, len(words))


def kinds_of(lexicon: Lexicon) -> Tensor:
    """Number in `KINDS` of each concept's kind, -1 where it has none that people ask after; [C + 1], the last -1."""
    return torch.tensor([ORDER.get(kind, -1) for kind in lexicon.kinds] + [-1])


def dense_losses(
    heads: DenseHeads, fused: Fused, owner: Tensor, at: Tensor, words: Words, kinds: Tensor
) -> dict[str, Tensor]:
    """The dense losses of a batch.

    Args:
        heads: what they are read by.
        fused: the texts' states and scores.
        owner: concept on each patch [B, N], -1 for the ground.
        at: from `places` [B, C, 3].
        words: the texts' marks.
        kinds: from `kinds_of` [C + 1].
    """
    row, text, place, concept = words.named.unbind(1)
    read = heads.where(fused.layers[NAMING][row, text, place]).float()
    true = at[row, concept]
    shown = true[:, 0]
    found = {
        "ground": looked(fused.scores[NAMING], words.named, owner[row] == concept[:, None]),
        "shown": F.binary_cross_entropy_with_logits(read[:, 0], shown),
        "where": 2 * (shown[:, None] * (read[:, 1:] - true[:, 1:]) ** 2).sum() / shown.sum().clamp(min=1),
        "turn": _distance(heads.turn, fused, words.turns, at, relative=True),
        "spot": _distance(heads.spot, fused, words.spots, at, relative=False),
        "look": looked(fused.scores[RELATING], words.looks, owner[words.looks[:, 0]] == words.looks[:, 3:]),
        "colour": looked(fused.scores[NAMING], words.grounds, owner[words.grounds[:, 0]] < 0),
    }
    row, text, place, kind = words.kinds.unbind(1)
    patches = kinds[owner[row]] == kind[:, None]
    found["kind"] = looked(fused.scores[NAMING], words.kinds, patches)
    if len(kind):
        read = heads.where(fused.layers[NAMING][row, text, place])[:, 0].float()
        found["kind"] = found["kind"] + F.binary_cross_entropy_with_logits(read, patches.any(1).float())
    return found


def _distance(head: nn.Linear, fused: Fused, words: Tensor, at: Tensor, relative: bool) -> Tensor:
    """Squared error of x and y, or of dx and dy between two concepts, over the words whose concepts are shown."""
    if not len(words):
        return at.new_zeros(())
    row, text, place = words[:, :3].unbind(1)
    one = at[row, words[:, 3]]
    other = at[row, words[:, 4]] if relative else torch.cat([torch.ones_like(one[:, :1]), 0 * one[:, 1:]], 1)
    weight = (one[:, 0] * other[:, 0])[:, None]
    read = head(fused.layers[RELATING][row, text, place]).float()
    return (weight * (read - (one - other)[:, 1:]) ** 2).sum() / weight.sum().clamp(min=1)
