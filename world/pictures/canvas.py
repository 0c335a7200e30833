"""Canvases: one to four drawings on a ground, and the truth of what lies where."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import torch

from uniadapter.model.backbone import CLIP_MEAN, CLIP_STD
from world.pictures.grounds import SIZE
from world.pictures.sprites import TILE, Sprites

CENTRES = ((24, 24), (72, 24), (24, 72), (72, 72))
COVERED = 0.3  # share of a patch that a drawing must cover to own it
Placed = tuple[int, float, float]  # concept, x and y of its middle in pixels
MEAN_PIXEL = torch.tensor(CLIP_MEAN).view(3, 1, 1)
STD_PIXEL = torch.tensor(CLIP_STD).view(3, 1, 1)


@dataclass
class Canvases:
    """A batch.

    Args:
        pixels: uint8 [B, 96, 96, 3].
        owner: concept on each patch [B, N], -1 where there is none.
        things: what is on each canvas.
        colours: name of each ground's colour, "" where it has no single one; empty where grounds have no names.
    """

    pixels: np.ndarray
    owner: np.ndarray
    things: list[list[Placed]]
    colours: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """B."""
        return len(self.things)

    def normalised(self) -> torch.Tensor:
        """Pixels as the image processor gives them, float32 [B, 3, 96, 96]."""
        pixels = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255
        return ((pixels - MEAN_PIXEL) / STD_PIXEL).contiguous()


def arrange(concepts: list[int], rng: random.Random) -> list[Placed]:
    """Up to four things in quarters of the canvas; one lies anywhere, a row or column of two anywhere across."""
    if len(concepts) == 1:
        return [(concepts[0], rng.uniform(22, 74), rng.uniform(22, 74))]
    cells = rng.sample(CENTRES, len(concepts))
    across = [0.0, 0.0]
    if len(concepts) == 2:
        (x0, y0), (x1, y1) = cells
        across = [rng.uniform(24, 72) - x0 if x0 == x1 else 0.0, rng.uniform(24, 72) - y0 if y0 == y1 else 0.0]
    shake = 5
    return [
        (concept, x + across[0] + rng.uniform(-shake, shake), y + across[1] + rng.uniform(-shake, shake))
        for concept, (x, y) in zip(concepts, cells, strict=True)
    ]


class Painter:
    """Paints layouts with one bank of sprites.

    Args:
        sprites: the drawings.
        ground: uint8 [G, 96, 96, 3].
        patch: side of a patch in pixels.
        colours: names of the grounds' colours.
    """

    def __init__(self, sprites: Sprites, ground: np.ndarray, patch: int, colours: list[str] | None = None) -> None:
        self.sprites, self.ground, self.patch, self.colours = sprites, ground, patch, colours or []

    def __call__(self, layouts: list[list[Placed]], rng: random.Random) -> Canvases:
        """Paint each layout; every draw comes from `rng`."""
        pixels = np.empty((len(layouts), SIZE, SIZE, 3), np.uint8)
        owner = np.full((len(layouts), SIZE, SIZE), -1, np.int16)
        colours = []
        for row, things in enumerate(layouts):
            number = rng.randrange(len(self.ground))
            pixels[row] = self.ground[number][:: rng.choice((1, -1)), :: rng.choice((1, -1))]
            colours += self.colours[number : number + 1]
            for concept, x, y in things:
                self._lay(pixels[row], owner[row], concept, x, y, rng)
        return Canvases(pixels, self._patches(owner, layouts), layouts, colours)

    def _lay(self, pixels: np.ndarray, owner: np.ndarray, concept: int, x: float, y: float, rng: random.Random) -> None:
        picture = int(rng.choice(self.sprites.of[concept]))
        tile = self.sprites.tiles[picture, rng.randrange(self.sprites.tiles.shape[1])]
        left, top = round(x - TILE / 2), round(y - TILE / 2)
        across, down = slice(max(left, 0), min(left + TILE, SIZE)), slice(max(top, 0), min(top + TILE, SIZE))
        tile = tile[down.start - top : down.stop - top, across.start - left : across.stop - left]
        alpha = tile[..., 3:].astype(np.uint16)
        under = (pixels[down, across].astype(np.uint16) * (255 - alpha) + 127) // 255
        pixels[down, across] = np.minimum(under + tile[..., :3], 255)
        owner[down, across][tile[..., 3] > 128] = concept

    def _patches(self, owner: np.ndarray, layouts: list[list[Placed]]) -> np.ndarray:
        """The concept that covers most of each patch, [B, N]; -1 where none covers enough."""
        side = SIZE // self.patch
        blocks = owner.reshape(len(owner), side, self.patch, side, self.patch)
        best = np.zeros((len(owner), side * side))
        out = np.full((len(owner), side * side), -1)
        for place in range(max(map(len, layouts))):
            concept = np.array([things[place][0] if place < len(things) else -2 for things in layouts])
            share = (blocks == concept[:, None, None, None, None]).mean((2, 4)).reshape(len(owner), -1)
            wins = (share > best) & (share > COVERED)
            out = np.where(wins, concept[:, None], out)
            best = np.maximum(best, share)
        return out
