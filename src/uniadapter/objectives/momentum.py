"""Momentum encoders for the contrastive loss: a second adapter set, or for full fine-tuning a second model."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.encoding import encode_text, visual_feature, visual_stem
from uniadapter.model.sets import (
    active_adapter,
    adapter_names,
    adapter_set,
    add_momentum,
    remove_adapter,
    update_momentum,
)


class Momentum(Protocol):
    """A slowly moving twin of what is trained."""

    def update(self) -> None:
        """Move towards the online weights, once a step."""

    def release(self) -> None:
        """Take what this has put on the model off it again; it is of no more use then."""

    def stem(self, frames: Tensor, chunk: int = 0) -> Any:
        """What online and momentum encoder compute alike for these visuals, to be computed once; None if nothing."""

    def features(
        self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0, stem: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Unit features of visuals [B, e] and texts [B, e], without gradient."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up a checkpoint."""


class AdapterMomentum:
    """The momentum encoder as a named adapter set on the shared, frozen backbone: no second copy of it exists.

    Args:
        model: holds the set that is trained.
        decay: 0.995 released.
        source: name of that set.
    """

    name = "momentum"

    def __init__(self, model: PreTrainedModel, decay: float, source: str = "default") -> None:
        self.model, self.decay, self.source = model, decay, source
        self.release()  # an earlier task's
        add_momentum(model, source, self.name)

    def release(self) -> None:
        """See `Momentum`."""
        if self.name in adapter_names(self.model) and adapter_set(self.model, self.name).momentum_of is not None:
            remove_adapter(self.model, self.name)

    def update(self) -> None:
        """See `Momentum`."""
        update_momentum(self.model, self.decay, self.source, self.name)

    def stem(self, frames: Tensor, chunk: int = 0) -> Any:
        """See `Momentum`."""
        return visual_stem(self.model, frames, chunk)

    @torch.no_grad()
    def features(
        self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0, stem: Any = None
    ) -> tuple[Tensor, Tensor]:
        """See `Momentum`."""
        with active_adapter(self.model, self.name):
            return visual_feature(self.model, frames, chunk, stem), encode_text(self.model, ids, mask).feature

    def state(self) -> dict[str, Tensor]:
        """See `Momentum`."""
        return adapter_set(self.model, self.name).state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Momentum`."""
        adapter_set(self.model, self.name).load_state_dict(state)


class ModelMomentum:
    """The usual way, needed where every weight is trained: a full copy of the model.

    Args:
        model: the model that is trained.
        decay: 0.995 released.
    """

    def __init__(self, model: PreTrainedModel, decay: float) -> None:
        self.model, self.decay = model, decay
        self.twin = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """See `Momentum`."""
        online = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(list(self.twin.parameters()), online, 1 - self.decay)

    def release(self) -> None:
        """See `Momentum`; a copy of its own is gone with it."""

    def stem(self, frames: Tensor, chunk: int = 0) -> None:
        """See `Momentum`; two models have nothing in common."""

    @torch.no_grad()
    def features(
        self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0, stem: Any = None
    ) -> tuple[Tensor, Tensor]:
        """See `Momentum`."""
        self.twin.train(self.model.training)
        return visual_feature(self.twin, frames, chunk), encode_text(self.twin, ids, mask).feature

    def state(self) -> dict[str, Tensor]:
        """See `Momentum`."""
        return self.twin.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Momentum`."""
        self.twin.load_state_dict(state)
