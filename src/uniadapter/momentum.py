"""Momentum encoders for the contrastive loss: a second adapter set, or for full fine-tuning a second model."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.adapters import active_adapter, adapter_set, add_momentum, update_momentum
from uniadapter.backbone import encode_text, encode_visual


class Momentum(Protocol):
    """A slowly moving twin of what is trained."""

    def update(self) -> None:
        """Move towards the online weights, once a step."""

    def features(self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0) -> tuple[Tensor, Tensor]:
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
        add_momentum(model, source, self.name)

    def update(self) -> None:
        """See `Momentum`."""
        update_momentum(self.model, self.decay, self.source, self.name)

    @torch.no_grad()
    def features(self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0) -> tuple[Tensor, Tensor]:
        """See `Momentum`."""
        with active_adapter(self.model, self.name):
            return encode_visual(self.model, frames, chunk).feature, encode_text(self.model, ids, mask).feature

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

    @torch.no_grad()
    def features(self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0) -> tuple[Tensor, Tensor]:
        """See `Momentum`."""
        self.twin.train(self.model.training)
        return encode_visual(self.twin, frames, chunk).feature, encode_text(self.twin, ids, mask).feature

    def state(self) -> dict[str, Tensor]:
        """See `Momentum`."""
        return self.twin.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Momentum`."""
        self.twin.load_state_dict(state)
