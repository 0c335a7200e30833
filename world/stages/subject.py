"""The base as a stage left it, with what is needed to ask it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from world.pictures.concepts import read_concepts
from world.stages.fused import fuse, margin
from world.stages.loop import part, restore
from world.stages.stage2 import Learner
from world.texts.names import Lexicon
from world.texts.questions import Asker
from world.texts.vocabulary import Vocabulary


@dataclass
class Subject:
    """The base with what is needed to ask it.

    Args:
        learner: the base and its answer head.
        lexicon: names.
        vocabulary: words.
    """

    learner: Learner
    lexicon: Lexicon
    vocabulary: Vocabulary

    @torch.no_grad()
    def first_states(self, tokens: Tensor, texts: list[list[list[str]]]) -> tuple[Tensor, Tensor]:
        """First token's states and matching margins of T texts for each canvas: [B, T, 192], [B, T]."""
        states, margins = [], []
        each = len(texts[0])
        for start in range(0, len(texts), 64):
            part = texts[start : start + 64]
            ids, mask = self.vocabulary.encode([words for some in part for words in some])
            shape = (len(part), each, -1)
            fused = fuse(self.learner.base, ids.view(shape), mask.view(shape), tokens[start : start + 64].float())
            states.append(fused.first)
            margins.append(margin(self.learner.base, fused))
        return torch.cat(states), torch.cat(margins)


def read(file: Path) -> Subject:
    """The base of the second stage as exported, or that of the joint stage."""
    concepts = read_concepts()
    lexicon = Lexicon(concepts)
    learner = Learner(len(Asker(lexicon, []).answers))
    state = load_file(file)
    restore(learner, part(state, "learner.") or state)
    return Subject(learner.eval().requires_grad_(False), lexicon, Vocabulary())
