"""How many parameters a model trains, of how many: structurally, with tied weights counted once."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from uniadapter.model.dispatch import backbone
from uniadapter.model.store import OWNER, unwrapped


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a model.

    Args:
        trainable: parameters with gradients: adapters, key/value adapters, heads.
        adapter: the same without heads.
        total: parameters of the task model without adapters, momentum copies and LoRA.
        embeddings: those of `total` in token embeddings.
        trainable_embeddings: those of `trainable` in token embeddings.
    """

    trainable: int
    adapter: int
    total: int
    embeddings: int
    trainable_embeddings: int = 0

    @property
    def trainable_percent(self) -> float:
        """Trainable in percent of the base."""
        return 100 * self.trainable / self.total

    @property
    def adapter_percent(self) -> float:
        """Adapters without heads in percent of the base; the paper's 2.2% is this figure."""
        return 100 * self.adapter / self.total

    @property
    def trainable_percent_without_embeddings(self) -> float:
        """Trainable in percent of the base, both without the base's token embeddings."""
        return 100 * (self.trainable - self.trainable_embeddings) / (self.total - self.embeddings)

    def __str__(self) -> str:
        return (
            f"trainable params: {self.trainable:,} || all params: {self.total:,} || trainable%: "
            f"{self.trainable_percent:.4f} (adapters alone {self.adapter_percent:.4f}, without token embeddings in "
            f"the base {self.trainable_percent_without_embeddings:.4f})"
        )


def count_parameters(model: PreTrainedModel) -> ParameterCounts:
    """Count the parameters that the model trains now, and all; tied weights count once.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=19, key_value=8))
        >>> counts = ua.count_parameters(model)
        >>> counts.adapter < counts.trainable < counts.total
        True
        >>> counts.trainable_percent < 2.2
        True
    """
    owner = unwrapped(model)._modules.get(OWNER)
    of_sets = {id(p) for p in owner.parameters()} if owner is not None else set()
    sets = owner.values() if isinstance(owner, nn.ModuleDict) else ()
    heads = {id(p) for s in sets for part in (s.heads, s.scalars) for p in part.parameters()}  # type: ignore[union-attr]
    named = list(model.named_parameters())
    parameters = [parameter for _, parameter in named]
    words = backbone(model).layout.vocabulary
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    tokens = [one.weight for one in embeddings if one.padding_idx is not None or one.num_embeddings == words]
    unique_tokens = {id(w): w for w in tokens}
    return ParameterCounts(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        adapter=sum(p.numel() for p in parameters if p.requires_grad and id(p) in of_sets and id(p) not in heads),
        total=sum(p.numel() for name, p in named if id(p) not in of_sets and "lora_" not in name),
        embeddings=sum(w.numel() for w in unique_tokens.values()),
        trainable_embeddings=sum(w.numel() for w in unique_tokens.values() if w.requires_grad),
    )


def print_trainable_parameters(model: PreTrainedModel) -> None:
    """Print what the model trains now, in PEFT's format: trainable, all (adapter sets included) and their share.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=19, key_value=8))
        >>> ua.print_trainable_parameters(model)  # doctest: +ELLIPSIS
        trainable params: ... || all params: ... || trainable%: ...
    """
    counts = count_parameters(model)
    owner = unwrapped(model)._modules.get(OWNER)
    everything = counts.total + sum(p.numel() for p in (owner.parameters() if owner is not None else ()))
    share = 100 * counts.trainable / everything
    line = f"trainable params: {counts.trainable:,d} || all params: {everything:,d} || trainable%: {share:.4f}"
    sys.stdout.write(line + "\n")
