"""Random draws that depend on what is drawn, never on who draws it.

Order, augmentation, frames, captions and hard negatives are each a function of (seed, epoch, sample id), so that a
resumed run and a run on several processes draw exactly what one uninterrupted process would. Dropout alone depends on
who draws it, on (seed, epoch, batch, process): a resumed run draws it again, several processes each draw their own.
"""

from __future__ import annotations

import random

import torch

_MASK = (1 << 64) - 1

# Names of the streams, so that two kinds of draw for one sample never share their bits.
ORDER, AUGMENT, CAPTION, NEGATIVE_VISUAL, NEGATIVE_TEXT, FRAMES, GROUPS, DROPOUT = range(8)


def draw_seed(*parts: int) -> int:
    """Mix integers into 64 well-spread bits (the finaliser of SplitMix64, chained over the parts)."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def uniform(*parts: int) -> float:
    """One number in [0, 1) for these parts."""
    return (draw_seed(*parts) >> 11) * 2.0**-53


def rng(*parts: int) -> random.Random:
    """A generator of its own for these parts."""
    return random.Random(draw_seed(*parts))


def permutation(count: int, *parts: int) -> list[int]:
    """A permutation of range(count) for these parts."""
    generator = torch.Generator().manual_seed(draw_seed(*parts) >> 1)
    return torch.randperm(count, generator=generator).tolist()
