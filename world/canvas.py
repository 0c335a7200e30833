"""Drawn emoji on backgrounds, a batch of canvases at a time, with the truth of what was drawn where."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 96
PATCH = 16
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 55, 50),
    "orange": (242, 150, 55),
    "yellow": (250, 222, 90),
    "green": (95, 180, 95),
    "blue": (70, 125, 210),
    "purple": (150, 95, 190),
    "pink": (246, 172, 198),
    "brown": (140, 100, 70),
    "black": (28, 28, 30),
    "white": (248, 248, 248),
    "grey": (150, 152, 156),
    "turquoise": (90, 205, 200),
}
SMALLEST, LARGEST, EASIEST = 34, 94, 86  # sides of a drawing that is alone, in pixels
QUARTERS = [(24, 24), (72, 24), (24, 72), (72, 72)]
BESIDE = (34, 47)  # sides of drawings that are not alone
SMALL_TILE = 48  # drawings up to this side are sampled from pictures of half the size


@dataclass(frozen=True)
class Spot:
    """One drawing of a canvas: which picture, and its centre and side in pixels."""

    picture: int
    x: float
    y: float
    side: float


@dataclass(frozen=True)
class Jitter:
    """How much drawings vary; all zero draws them as they are."""

    angle: float = 0.2  # radians
    stretch: float = 0.08
    gain: float = 0.15
    tint: float = 0.12
    lift: float = 0.08
    shading: float = 0.3  # of a light from some side, which flat drawings lack


STILL = Jitter(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass
class Drawn:
    """A batch of canvases and what shows on each patch."""

    pixels: Tensor  # [B, 3, 96, 96], normalised
    owner: Tensor  # [B, 36] picture on each patch, -1 where there is none
    colour: list[str]  # name of each background, "" where it has no single one


def premultiply(pictures: Tensor) -> Tensor:
    """RGBA uint8 [N, H, W, 4] → premultiplied uint8 [N, 4, H, W]."""
    wide = pictures.permute(0, 3, 1, 2).to(torch.int16)
    wide[:, :3] = wide[:, :3] * wide[:, 3:] // 255
    return wide.to(torch.uint8).contiguous()


def half_size(pictures: Tensor, chunk: int = 512) -> Tensor:
    """Averaged 2 × 2: what small drawings are sampled from, so that they don't alias."""
    parts = [F.avg_pool2d(p.float(), 2).round().to(torch.uint8) for p in pictures.split(chunk)]
    return torch.cat(parts)


def normalise(images: Tensor) -> Tensor:
    """[B, 3, H, W] in 0 … 1 → as the image processor would."""
    mean, std = images.new_tensor(MEAN).view(3, 1, 1), images.new_tensor(STD).view(3, 1, 1)
    return (images - mean) / std


def alone(picture: int, hardness: float, rng: random.Random) -> list[Spot]:
    """One drawing: at `hardness` 0 it fills the canvas, at 1 it may be small and anywhere."""
    smallest = EASIEST + (SMALLEST - EASIEST) * hardness
    side = smallest + (LARGEST - smallest) * rng.random() ** 1.5
    room = (SIZE + 2 - side) / 2
    return [Spot(picture, SIZE / 2 + rng.uniform(-room, room), SIZE / 2 + rng.uniform(-room, room), side)]


def together(pictures: list[int], rng: random.Random) -> list[Spot]:
    """Two to four drawings in quarters of the canvas, none on another.

    A row or a column of two may lie anywhere across.
    """
    centres = rng.sample(QUARTERS, len(pictures))
    across = [0.0, 0.0]
    if len(pictures) == 2:
        (x0, y0), (x1, y1) = centres
        across = [
            rng.uniform(24, 72) - x0 if x0 == x1 else 0.0,
            rng.uniform(24, 72) - y0 if y0 == y1 else 0.0,
        ]
    spots = []
    for picture, (x, y) in zip(pictures, centres, strict=True):
        side = rng.uniform(*BESIDE)
        shake = (SMALL_TILE - side) / 2 + 1
        x, y = x + across[0] + rng.uniform(-shake, shake), y + across[1] + rng.uniform(-shake, shake)
        spots.append(Spot(picture, x, y, side))
    return spots


def backgrounds(count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """Flat colours, gradients and mild noise; named where one colour is all there is."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    table = torch.tensor(list(COLOURS.values())) / 255.0
    names = list(COLOURS)
    first = torch.randint(len(names), (count,), generator=generator)
    second = torch.randint(len(names), (count,), generator=generator)
    kind = rand(count)
    base = table[first] + (rand(count, 3) - 0.5) * 0.10
    shade = base + (rand(count, 1) - 0.5) * 0.30
    two = (kind >= 0.8).unsqueeze(1)
    other = torch.where(two, table[second], torch.where(kind.unsqueeze(1) < 0.5, base, shade))
    angle = rand(count) * 2 * torch.pi
    axis = torch.linspace(-1, 1, SIZE)
    ramp = torch.cos(angle).view(-1, 1, 1) * axis.view(1, 1, -1)
    ramp = ramp + torch.sin(angle).view(-1, 1, 1) * axis.view(1, -1, 1)
    ramp = (ramp / 2.8 + 0.5).unsqueeze(1)
    image = base[:, :, None, None] * (1 - ramp) + other[:, :, None, None] * ramp
    coarse = (rand(count, 3, 7, 7) - 0.5) * (rand(count, 1, 1, 1) * 0.16)
    image = image + F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")
    colour = ["" if k >= 0.8 else names[i] for k, i in zip(kind.tolist(), first, strict=True)]
    return image.clamp(0, 1), colour


def draw(
    large: Tensor,
    small: Tensor,
    canvases: list[list[Spot]],
    generator: torch.Generator,
    jitter: Jitter | None = None,
    mirrored: Tensor | None = None,
) -> Drawn:
    """Draw canvases.

    Args:
        large: all pictures, premultiplied uint8 [N, 4, 96, 96].
        small: the same, [N, 4, 48, 48].
        canvases: what is drawn on each.
        generator: of backgrounds and variations.
        jitter: how drawings vary.
        mirrored: [N] whether a picture may be drawn mirrored; none where it is not given.
    """
    jitter = jitter or Jitter()
    image, colours = backgrounds(len(canvases), generator)
    spots = [(row, spot) for row, canvas in enumerate(canvases) for spot in canvas]
    for tile, source in ((SMALL_TILE, small), (SIZE, large)):
        chosen = [(row, s) for row, s in spots if (s.side <= SMALL_TILE) == (tile == SMALL_TILE)]
        if chosen:
            _paste(image, tiles(source, [s for _, s in chosen], tile, generator, jitter, mirrored), chosen)
    return Drawn(normalise(image), owners(canvases), colours)


def tiles(
    source: Tensor, spots: list[Spot], tile: int, generator: torch.Generator, jitter: Jitter, mirrored: Tensor | None
) -> Tensor:
    """Each drawing in the middle of a square of its own: premultiplied [S, 4, tile, tile] in 0 … 1."""
    count = len(spots)

    def spread(width: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * width

    rows = torch.tensor([s.picture for s in spots])
    scale = torch.tensor([s.side for s in spots]) / tile
    scales = scale.unsqueeze(1) * (1 + spread(jitter.stretch, 2))
    flip = spread(1.0) < 0
    sign = torch.where(flip & mirrored[rows], -1.0, 1.0) if mirrored is not None else torch.ones(count)
    angle = spread(jitter.angle)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotate = torch.stack([sign * cos, sign * sin, -sin, cos], dim=1).view(count, 2, 2) / scales.unsqueeze(2)
    grid = F.affine_grid(torch.cat([rotate, torch.zeros(count, 2, 1)], 2), [count, 4, tile, tile], False)
    sprite = F.grid_sample(source[rows].float() / 255.0, grid, align_corners=False)
    colour, alpha = sprite[:, :3], sprite[:, 3:]
    gain = 1 + spread(jitter.gain, 1, 1, 1) + spread(jitter.tint, 3, 1, 1)
    axis, light = torch.linspace(-1, 1, tile), spread(math.pi)
    ramp = torch.cos(light).view(-1, 1, 1) * axis.view(1, 1, -1) + torch.sin(light).view(-1, 1, 1) * axis.view(1, -1, 1)
    gain = gain + spread(jitter.shading, 1, 1, 1) * ramp.unsqueeze(1) / scale.view(-1, 1, 1, 1)
    colour = torch.minimum((colour * gain + spread(jitter.lift, 1, 1, 1) * alpha).clamp(min=0), alpha)
    return torch.cat([colour, alpha], 1)


def _paste(image: Tensor, drawings: Tensor, spots: list[tuple[int, Spot]]) -> None:
    """Lay tiles over canvases [B, 3, 96, 96] in place; what hangs over the edge is cut."""
    tile = drawings.shape[-1]
    for (row, spot), drawing in zip(spots, drawings, strict=True):
        left, top = round(spot.x - tile / 2), round(spot.y - tile / 2)
        across, down = slice(max(left, 0), min(left + tile, SIZE)), slice(max(top, 0), min(top + tile, SIZE))
        part = drawing[:, down.start - top : down.stop - top, across.start - left : across.stop - left]
        image[row, :, down, across].mul_(1 - part[3:]).add_(part[:3])


def owners(canvases: list[list[Spot]]) -> Tensor:
    """Picture on each patch, [B, 36]: the nearest drawing whose square holds the patch's middle, or -1."""
    middle = torch.arange(PATCH / 2, SIZE, PATCH)
    down, across = (m.flatten() for m in torch.meshgrid(middle, middle, indexing="ij"))
    out = torch.full((len(canvases), len(across)), -1)
    for row, canvas in enumerate(canvases):
        x, y, side = (torch.tensor([getattr(s, k) for s in canvas]).unsqueeze(1) for k in ("x", "y", "side"))
        away = torch.maximum((across - x).abs(), (down - y).abs())
        away = torch.where(away < side / 2, away, torch.inf)
        nearest, which = away.min(0)
        pictures = torch.tensor([s.picture for s in canvas])
        out[row] = torch.where(nearest.isfinite(), pictures[which], -1)
    return out
