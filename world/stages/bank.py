"""Canvases as the frozen visual encoder of the first stage sees them: tokens, and what is where."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BlipVisionModel

from world.pictures.canvas import Painter, Placed, arrange
from world.pictures.concepts import WorldConcept, read_concepts
from world.pictures.grounds import named_grounds
from world.pictures.sources import PRETRAINED
from world.pictures.sprites import STILL, Jitter, make_sprites, read_pictures
from world.stages.loop import part
from world.stages.vision import PATCH, build_vision, encode
from world.texts.names import Lexicon
from world.texts.truths import Scene

STAGE_ONE = Path(__file__).with_name("stage1.safetensors")
COUNTS = (0.22, 0.26, 0.26, 0.26)  # canvases of one to four things; about even, so that a number alone tells nothing


@dataclass
class Bank:
    """Encoded canvases.

    Args:
        tokens: states of the visual encoder [V, 1 + N, 192], float16.
        owner: concept on each patch [V, N].
        scenes: what is on each.
    """

    tokens: Tensor
    owner: Tensor
    scenes: list[Scene]

    def __len__(self) -> int:
        """V."""
        return len(self.scenes)


def read_vision(file: Path = STAGE_ONE) -> tuple[BlipVisionModel, dict[str, Tensor]]:
    """The encoder of the first stage, frozen, and the weights of its heads."""
    state = load_file(file)
    model = build_vision(PATCH)
    model.load_state_dict({name: value.float() for name, value in part(state, "vision.").items()})
    heads = {name: value.float() for name, value in part(state, "heads.").items()}
    return model.requires_grad_(False).eval(), heads


def layout(among: list[int], lexicon: Lexicon, count: int, rng: random.Random) -> list[Placed]:
    """Things of which none has a name that is part of another's."""
    chosen: list[int] = []
    while len(chosen) < count:
        concept = rng.choice(among)
        if not lexicon.alike[concept] & set(chosen):
            chosen.append(concept)
    return arrange(chosen, rng)


def encoded(
    vision: BlipVisionModel, painter: Painter, layouts: list[list[Placed]], rng: random.Random, bf16: bool
) -> Bank:
    """Paint layouts and encode them."""
    tokens, owner, scenes = [], [], []
    for start in range(0, len(layouts), 128):
        canvases = painter(layouts[start : start + 128], rng)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            tokens.append(encode(vision, canvases.normalised()).half())
        owner.append(torch.from_numpy(canvases.owner))
        colours = canvases.colours or [""] * len(canvases)
        scenes += [Scene(things, colour) for things, colour in zip(canvases.things, colours, strict=True)]
    with torch.autocast("cpu", enabled=False):  # which can't join float16
        return Bank(torch.cat(tokens), torch.cat(owner), scenes)


class Drawings:
    """What training canvases are painted from: the concepts that pre-training sees, their drawings, and grounds.

    Args:
        seed: of the grounds.
    """

    def __init__(self, seed: int) -> None:
        self.concepts: list[WorldConcept] = read_concepts()
        self.lexicon = Lexicon(self.concepts)
        self.seen = [number for number, concept in enumerate(self.concepts) if not concept.novel]
        self.pictures = read_pictures(self.concepts, PRETRAINED)
        self.ground, self.colours = named_grounds(3000, seed)

    def paint(self, variants: int, seed: int, patch: int = PATCH) -> Painter:
        """A painter with variants of each drawing that are drawn with a seed."""
        sprites = make_sprites(*self.pictures, len(self.concepts), variants, Jitter(), seed)
        return Painter(sprites, self.ground, patch, self.colours)


class Source(Drawings):
    """Training canvases by round: each round's drawings are varied anew, and its canvases are used twice.

    Args:
        vision: the frozen encoder.
        size: canvases a round.
        seed: of everything.
        bf16: encode in bfloat16.
    """

    def __init__(self, vision: BlipVisionModel, size: int, seed: int, bf16: bool) -> None:
        super().__init__(seed)
        self.vision, self.size, self.seed, self.bf16 = vision, size, seed, bf16

    def round(self, number: int) -> Bank:
        """The canvases of a round; a function of seed and number."""
        painter = self.paint(4, self.seed * 1_000_003 + 500_000 + number)
        rng = random.Random(f"stage2 {self.seed} {number}")
        layouts = [layout(self.seen, self.lexicon, rng.choices((1, 2, 3, 4), COUNTS)[0], rng) for _ in range(self.size)]
        return encoded(self.vision, painter, layouts, rng, self.bf16)


def still_painter(style: str) -> Painter:
    """Paints with the drawings of a style as they are, on grounds that no training saw."""
    concepts = read_concepts()
    sprites = make_sprites(*read_pictures(concepts, (style,)), len(concepts), 4, STILL, 1)
    ground, colours = named_grounds(500, 99)
    return Painter(sprites, ground, PATCH, colours)
