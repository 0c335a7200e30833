"""Drawings in many variants, ready to be laid on canvases: the world's only source of variety beside the layout.

What shifts between styles is line, shading, texture and palette, not shape. So pre-training's variants move all of
these: turned, stretched and bent; lit from a side; with another gamma, tint, blur and grain; part of them greyed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from world.pictures.concepts import WorldConcept
from world.pictures.sources import CACHE

TILE = 48  # side of the square that a drawing stands in, in pixels
SIDES = (30.0, 46.0)  # of the drawing itself


@dataclass(frozen=True)
class Jitter:
    """How much variants vary; all zero leaves a drawing as it is."""

    angle: float = 0.25  # radians
    stretch: float = 0.12
    bend: float = 0.06  # of the side, by a smooth random field
    gain: float = 0.2
    tint: float = 0.15
    lift: float = 0.1
    shading: float = 0.45  # of a light from some side, which flat drawings lack
    gamma: float = 0.35
    grain: float = 0.25  # of a smooth texture laid over
    blur: float = 0.4  # share that is blurred
    grey: float = 0.15  # share whose colour is lost
    mirror: float = 0.5  # share that is mirrored


STILL = Jitter(*[0.0] * 12)


@dataclass
class Sprites:
    """Variants of drawings.

    Args:
        tiles: premultiplied RGBA uint8 [P, V, 48, 48, 4].
        side: of each drawing in its tile, in pixels [P, V].
        concept: of each picture [P].
        of: the pictures of each concept.
    """

    tiles: np.ndarray
    side: np.ndarray
    concept: np.ndarray
    of: list[np.ndarray]


def read_pictures(concepts: list[WorldConcept], styles: tuple[str, ...]) -> tuple[Tensor, np.ndarray]:
    """Premultiplied pictures uint8 [P, 4, 48, 48] of the concepts in these styles, and the concept of each [P]."""
    index = {concept.code: number for number, concept in enumerate(concepts)}
    with np.load(CACHE / "pictures.npz") as file:
        found = zip(file["styles"], file["codes"], strict=True)
        rows = [row for row, (style, code) in enumerate(found) if str(style) in styles and str(code) in index]
        wide = torch.from_numpy(file["pictures"][rows]).permute(0, 3, 1, 2).float()
        owners = np.array([index[str(file["codes"][row])] for row in rows])
    wide[:, :3] *= wide[:, 3:] / 255
    return F.avg_pool2d(wide, 96 // TILE).round().to(torch.uint8), owners


def make_sprites(
    pictures: Tensor, owners: np.ndarray, concepts: int, variants: int, jitter: Jitter, seed: int
) -> Sprites:
    """Draw `variants` of every picture; a function of the seed."""
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    tiles = np.empty((len(pictures), variants, TILE, TILE, 4), np.uint8)
    side = np.empty((len(pictures), variants), np.float32)
    source = pictures.float() / 255
    for variant in range(variants):
        sides = torch.tensor([rng.uniform(*SIDES) for _ in range(len(pictures))])
        drawn = vary(source, sides, jitter, generator)
        tiles[:, variant] = (drawn.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        side[:, variant] = sides.numpy()
    return Sprites(tiles, side, owners, [np.where(owners == concept)[0] for concept in range(concepts)])


def vary(source: Tensor, sides: Tensor, jitter: Jitter, generator: torch.Generator) -> Tensor:
    """One variant of each picture [P, 4, 48, 48] in 0 … 1, premultiplied, of side `sides` [P] pixels in its tile."""
    count = len(source)

    def spread(width: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * width

    sprite = F.grid_sample(source, _grid(sides, jitter, spread), align_corners=False)
    colour, alpha = sprite[:, :3], sprite[:, 3:]
    plain = colour / alpha.clamp(min=1 / 255)
    luma = plain.mean(1, keepdim=True)
    plain = torch.where((spread(1.0, 1, 1, 1) * 0.5 + 0.5) < jitter.grey, luma.expand_as(plain), plain)
    plain = plain.clamp(1e-4, 1) ** torch.exp(spread(jitter.gamma, 1, 1, 1))
    light = spread(math.pi)
    axis = torch.linspace(-1, 1, TILE)
    ramp = torch.cos(light).view(-1, 1, 1) * axis.view(1, 1, -1) + torch.sin(light).view(-1, 1, 1) * axis.view(1, -1, 1)
    gain = 1 + spread(jitter.gain, 1, 1, 1) + spread(jitter.tint, 3, 1, 1)
    gain = gain + spread(jitter.shading, 1, 1, 1) * ramp.unsqueeze(1) * (TILE / sides).view(-1, 1, 1, 1)
    gain = gain + F.interpolate(spread(jitter.grain, 1, 8, 8), size=(TILE, TILE), mode="bicubic")
    drawn = torch.cat([(plain * gain + spread(jitter.lift, 1, 1, 1)).clamp(0, 1) * alpha, alpha], 1)
    blurred = F.avg_pool2d(drawn, 3, 1, 1)
    return torch.where((spread(1.0, 1, 1, 1) * 0.5 + 0.5) < jitter.blur, blurred, drawn)


def _grid(sides: Tensor, jitter: Jitter, draw: Callable[..., Tensor]) -> Tensor:
    """Where each pixel of a tile is taken from: turned, stretched, mirrored and bent; [P, 48, 48, 2].

    `draw(width, *shape)` gives numbers in -width … width, [P, *shape].
    """
    scales = (sides / TILE).unsqueeze(1) * (1 + draw(jitter.stretch, 2))
    sign = torch.where(draw(0.5) + 0.5 < jitter.mirror, -1.0, 1.0)
    angle = draw(jitter.angle)
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([sign * cos, sign * sin, -sin, cos], 1).view(-1, 2, 2) / scales.unsqueeze(2)
    grid = F.affine_grid(torch.cat([turn, torch.zeros(len(sides), 2, 1)], 2), [len(sides), 4, TILE, TILE], False)
    field = F.interpolate(draw(jitter.bend * 2, 2, 4, 4), size=(TILE, TILE), mode="bicubic")
    return grid + field.permute(0, 2, 3, 1)
