"""Momentum encoders (exponential moving averages) for the contrastive loss: of an adapter set, or of a whole model."""

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
    """An exponential moving average of the trained weights, which encodes the contrastive loss's targets."""

    def update(self) -> None:
        """Update the average; once in each optimiser step."""

    def release(self) -> None:
        """Remove from the model what this object has added; it cannot be used afterwards."""

    def stem(self, frames: Tensor, chunk: int = 0) -> Any:
        """The part of the visual encoder that both encoders share, see `visual_stem`; None if they share nothing."""

    def features(
        self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0, stem: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Unit features of visuals [B, e] and texts [B, e], without gradient."""

    def state(self) -> dict[str, Tensor]:
        """The weights, for a checkpoint."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""


class AdapterMomentum:
    """A momentum encoder as a second adapter set on the same frozen backbone, which is not copied.

    Args:
        model: holds the trained set.
        decay: of the average; 0.995 in BLIP.
        source: name of the trained set.
    """

    name = "momentum"

    def __init__(self, model: PreTrainedModel, decay: float, source: str = "default") -> None:
        self.model, self.decay, self.source = model, decay, source
        self.release()  # one that an earlier training has left
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
    """A momentum encoder as a copy of the whole model, as in BLIP; for full fine-tuning.

    Args:
        model: the trained model.
        decay: of the average; 0.995 in BLIP.
    """

    def __init__(self, model: PreTrainedModel, decay: float) -> None:
        self.model, self.decay = model, decay
        self.copy = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """See `Momentum`."""
        online = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(list(self.copy.parameters()), online, 1 - self.decay)

    def release(self) -> None:
        """See `Momentum`; nothing was added to the model."""

    def stem(self, frames: Tensor, chunk: int = 0) -> None:
        """See `Momentum`; two models share nothing."""

    @torch.no_grad()
    def features(
        self, frames: Tensor, ids: Tensor, mask: Tensor, chunk: int = 0, stem: Any = None
    ) -> tuple[Tensor, Tensor]:
        """See `Momentum`."""
        self.copy.train(self.model.training)
        return visual_feature(self.copy, frames, chunk), encode_text(self.copy, ids, mask).feature

    def state(self) -> dict[str, Tensor]:
        """See `Momentum`."""
        return self.copy.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Momentum`."""
        self.copy.load_state_dict(state)
