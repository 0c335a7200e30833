"""Single emoji drawn on backgrounds, a batch at a time, with the truth of what was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 96
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
SMALLEST, LARGEST, EASIEST = 0.35, 1.0, 0.9


def premultiply(pictures: Tensor) -> Tensor:
    """RGBA uint8 [N, H, W, 4] → premultiplied uint8 [N, 4, H, W]."""
    wide = pictures.permute(0, 3, 1, 2).to(torch.int16)
    wide[:, :3] = wide[:, :3] * wide[:, 3:] // 255
    return wide.to(torch.uint8).contiguous()


def half_size(pictures: Tensor, chunk: int = 512) -> Tensor:
    """Averaged 2 × 2: what small drawings are sampled from, so that they don't alias."""
    parts = [F.avg_pool2d(p.float(), 2).round().to(torch.uint8) for p in pictures.split(chunk)]
    return torch.cat(parts)


@dataclass
class Drawn:
    """A batch of canvases and the truth about each."""

    pixels: Tensor  # [B, 3, 96, 96], normalised
    scale: Tensor  # [B] share of the canvas' side
    centre: Tensor  # [B, 2] x, y in -1 … 1, y downwards
    colour: list[str]  # name of the background, "" where it has no single one


def normalise(images: Tensor) -> Tensor:
    """[B, 3, H, W] in 0 … 1 → as the image processor would."""
    mean, std = images.new_tensor(MEAN).view(3, 1, 1), images.new_tensor(STD).view(3, 1, 1)
    return (images - mean) / std


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
    rows: Tensor,
    generator: torch.Generator,
    jitter: bool = True,
    hardness: float = 1.0,
) -> Drawn:
    """Draw pictures ``rows`` at random size, place and background.

    At ``hardness`` 0 they fill the canvas; at 1 they are as small and as far off as they get.

    ``large`` and ``small`` are premultiplied uint8 [N, 4, 96, 96] and [N, 4, 48, 48].
    """
    count = len(rows)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    # Small drawings more often: they are what scenes are made of.
    smallest = EASIEST + (SMALLEST - EASIEST) * hardness
    scale = smallest + (LARGEST - smallest) * rand(count) ** 1.5
    centre = (rand(count, 2) * 2 - 1) * (1.04 - scale).clamp(min=0.0).unsqueeze(1)
    angle = (rand(count) * 2 - 1) * (0.2 if jitter else 0.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rotate = torch.stack([cos, sin, -sin, cos], dim=1).view(count, 2, 2)
    shift = -(rotate @ centre.unsqueeze(2))
    grid = F.affine_grid(torch.cat([rotate, shift], 2), [count, 4, SIZE, SIZE], False)
    sprite = torch.empty(count, 4, SIZE, SIZE)
    for source, chosen in ((large, scale > 0.6), (small, scale <= 0.6)):
        if chosen.any():
            pictures = source[rows[chosen]].float() / 255.0
            sprite[chosen] = F.grid_sample(pictures, grid[chosen], align_corners=False)
    colour, alpha = sprite[:, :3], sprite[:, 3:]
    if jitter:
        gain = 1 + (rand(count, 1, 1, 1) - 0.5) * 0.3 + (rand(count, 3, 1, 1) - 0.5) * 0.16
        lift = (rand(count, 1, 1, 1) - 0.5) * 0.16
        colour = torch.minimum((colour * gain + lift * alpha).clamp(min=0), alpha)
    back, names = backgrounds(count, generator)
    return Drawn(normalise(colour + back * (1 - alpha)), scale, centre, names)
