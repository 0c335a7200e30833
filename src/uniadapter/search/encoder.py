"""The model behind an index: features of frames and queries, matching scores, and a fingerprint of all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniadapter.checkpoints.pretrained import Pretrained
from uniadapter.errors import CheckpointError
from uniadapter.files.writing import file_hash
from uniadapter.inference.features import image_features, inference, picture_transform, text_features
from uniadapter.model.dispatch import fuses
from uniadapter.model.encoding import encode_visual, match
from uniadapter.model.identity import base_hash
from uniadapter.model.settings import first_given
from uniadapter.search.keyframes import RULE
from uniadapter.search.queries import Query

FORMAT = 1  # of the index; another is refused
AT_ONCE = 64  # frames encoded at once
VIDEO_FRAMES = 4  # with which a video is matched, where the adapter has no number of its own
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprint:
    """All that an index's vectors depend on; names are told, and do not count.

    Args:
        base: hash of its weights.
        adapter: hash of its weights; "" for the base alone.
        preprocessing: size, normalisation and resampling of pictures.
        frames: the rule by which frames are chosen.
        format: of the index.
    """

    base: str
    adapter: str
    preprocessing: dict[str, Any]
    frames: str = RULE
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """A hash of it."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()[:16]

    def differs_in(self, other: dict[str, Any]) -> list[str]:
        """The parts that are not those of another index, in words."""
        words = {"base": "base", "adapter": "adapter", "preprocessing": "preprocessing", "frames": "choice of frames",
                 "format": "format"}  # fmt: skip
        return [words[name] for name, value in json.loads(json.dumps(vars(self))).items() if other.get(name) != value]


class Encoder:
    """A retrieval model that encodes frames and queries.

    Args:
        loaded: base and adapter, of `ua.from_pretrained`.

    Raises:
        CheckpointError: it was made for another task.
    """

    def __init__(self, loaded: Pretrained) -> None:
        if loaded.task != "retrieval":
            raise CheckpointError(f"{loaded.adapter or loaded.base}: made for {loaded.task}; searching needs retrieval")
        self.loaded = loaded
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.model.requires_grad_(False)
        self.transform = picture_transform(self.model)
        self.width = int(self.text("a").shape[-1])

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See `Fingerprint`."""
        folder = self.loaded.adapter
        adapter = file_hash(folder / "adapter_model.safetensors") if folder else ""
        return Fingerprint(base_hash(self.model), adapter, vars(self.transform))

    @property
    def can_match(self) -> bool:
        """Whether the family fuses texts with pictures, so that pairs can be matched."""
        return fuses(self.model)

    def frames(self, pixels: Sequence[Tensor]) -> Vectors:
        """Unit vectors [F, e] of frames that `transform` has made, each for itself."""
        if not pixels:
            return np.zeros((0, self.width), np.float32)
        with inference(self.model, None):
            shown = torch.stack(list(pixels))[:, None].to(self.model.device)
            return encode_visual(self.model, shown, AT_ONCE).feature.float().cpu().numpy()

    def text(self, words: str) -> Vectors:
        """Unit vector [e] of words."""
        return text_features(self.model, self.tokenizer, words).feature[0].float().cpu().numpy()

    def query(self, query: Query) -> Vectors:
        """Unit vector [e]: the weighed sum of the terms' own."""
        total = np.zeros(self.width, np.float32)
        for term in query.terms:
            if term.picture is None:
                total += term.weight * self.text(term.text)
            else:
                total += (
                    term.weight * image_features(self.model, [str(term.picture)], frames=1).feature[0].cpu().numpy()
                )
        length = float(np.linalg.norm(total))
        return total / length if length > 1e-9 else total

    def match(self, query: Query, paths: Sequence[str], kinds: Sequence[str]) -> tuple[Vectors, Vectors]:
        """What the matching head says of a query and each file: weighed means over the terms.

        Args:
            query: of words alone.
            paths: of pictures and videos; keys and values of each are computed once for all terms.
            kinds: "picture" or "video".

        Returns:
            Logits [K], by which the evaluation ranks, and probabilities [K] that the words are true of it.

        Raises:
            DataError: a file cannot be read.
        """
        texts = text_features(self.model, self.tokenizer, [term.text for term in query.terms])
        weights = torch.tensor([term.weight for term in query.terms])
        weights = weights / weights.sum()
        logits = torch.zeros(len(paths), 2)
        for kind in sorted(set(kinds)):
            rows = [row for row, one in enumerate(kinds) if one == kind]
            frames = first_given(self.loaded.settings.frames, 1)
            frames = max(frames, VIDEO_FRAMES) if kind == "video" else frames
            visuals = image_features(self.model, [str(paths[row]) for row in rows], frames)
            pairs = torch.cartesian_prod(torch.arange(len(texts)), torch.arange(len(rows)))
            with inference(self.model, None):
                found = match(self.model, texts, visuals, pairs.to(self.model.device)).float().cpu()
            logits[rows] = (found.view(len(texts), len(rows), 2) * weights[:, None, None]).sum(0)
        return logits[:, 1].numpy(), logits.softmax(-1)[:, 1].numpy()
