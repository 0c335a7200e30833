"""Seeds for every random choice, derived from (seed, epoch, sample id) and never from a process or a worker.

Shuffling, augmentation, frame sampling and hard negatives each use a random stream of their own. A resumed run, and a
run on several processes, therefore make the same choices as one uninterrupted process. Only dropout depends on the
process, on (seed, epoch, batch, rank).
"""

from __future__ import annotations

import random

import torch

_MASK = (1 << 64) - 1

# Ids of the random streams, so that two of them never use the same bits for one sample.
ORDER, AUGMENT, CAPTION, NEGATIVE_VISUAL, NEGATIVE_TEXT, FRAMES, GROUPS, DROPOUT, PAIRS, SHARDS = range(10)


def derive_seed(*parts: int) -> int:
    """Hash integers, such as (seed, stream, epoch, sample), into a 64-bit seed by SplitMix64's finaliser."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def uniform(*parts: int) -> float:
    """A uniform number in [0, 1) that is a function of `parts`."""
    return (derive_seed(*parts) >> 11) * 2.0**-53


def derive_rng(*parts: int) -> random.Random:
    """A generator seeded by `parts`."""
    return random.Random(derive_seed(*parts))


def permutation(count: int, *parts: int) -> list[int]:
    """A random permutation of range(count) that is a function of `parts`."""
    generator = torch.Generator().manual_seed(derive_seed(*parts) >> 1)
    return torch.randperm(count, generator=generator).tolist()
