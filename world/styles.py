"""Pictures of the concepts, of one or more styles, as training draws them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from world.canvas import half_size, premultiply
from world.concepts import FLAG_GROUP, Concept
from world.gather import CACHE

NEW_STYLE = "fluent-3d"
NOT_MIRRORED = {"arrow", "keycap", "alphanum", "av-symbol", "punctuation", "math"}


@dataclass
class Pictures:
    """Pictures of one or more styles, at two sizes, with the concept of each."""

    large: Tensor
    small: Tensor
    concept: Tensor
    mirrored: Tensor  # [N] bool: may be drawn mirrored

    @classmethod
    def read(cls, concepts: list[Concept], keep: set[str], new_style: bool) -> Pictures:
        """Pictures of the concepts ``keep`` in the drawn styles, or in the new one."""
        index = {c.hexcode: i for i, c in enumerate(concepts)}
        with np.load(CACHE / "pictures.npz") as file:
            styles, codes = file["styles"], file["codes"]
            rows = [
                i
                for i, (style, code) in enumerate(zip(styles, codes, strict=True))
                if (style == NEW_STYLE) == new_style and str(code) in keep
            ]
            large = premultiply(torch.from_numpy(file["pictures"][rows]))
        concept = torch.tensor([index[str(codes[i])] for i in rows])
        free = [
            c.group != FLAG_GROUP and c.subgroup not in NOT_MIRRORED and not {"left", "right"} & set(c.label.split())
            for c in concepts
        ]
        return cls(large, half_size(large), concept, torch.tensor(free)[concept])
