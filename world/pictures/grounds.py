"""Grounds that things stand on: flat colours, gradients and mild noise, named where one colour is all there is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 96  # side of a canvas in pixels
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


def grounds(count: int, seed: int) -> np.ndarray:
    """Grounds uint8 [count, 96, 96, 3]."""
    return named_grounds(count, seed)[0]


def named_grounds(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Grounds uint8 [count, 96, 96, 3] with the name of each one's colour, "" where it has no single one."""
    generator = torch.Generator().manual_seed(seed)
    parts = [backgrounds(min(500, count - done), generator) for done in range(0, count, 500)]
    pixels = (torch.cat([part for part, _ in parts]).permute(0, 2, 3, 1) * 255).to(torch.uint8).numpy()
    return pixels, [name for _, names in parts for name in names]


def backgrounds(count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """Grounds [count, 3, 96, 96] in 0 … 1, and the name of each one's colour, "" where it has no single one."""

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
