"""Named adapter sets on one frozen backbone: add, select, disable, remove, count (after PEFT's public contract)."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.config import AdapterConfig
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.backbone import adopt, backbone, restore
from uniadapter.model.identity import base_parameters
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings
from uniadapter.model.store import OWNER, bare

logger = logging.getLogger(__name__)

__all__ = [
    "Counts",
    "active_adapter",
    "active_settings",
    "adapter_names",
    "adapter_set",
    "add_momentum",
    "add_set",
    "count_parameters",
    "disable_adapter",
    "print_trainable_parameters",
    "remove_adapter",
    "select_adapter",
    "update_momentum",
]


def _exclude_from_saving(model: PreTrainedModel) -> None:
    """Keep `save_pretrained` writing exactly the base's keys, whatever sets there are; these go beside them."""
    model = bare(model)
    mine = f"{OWNER}."
    kept = {key for key in model._keys_to_ignore_on_save or () if not key.startswith(mine)}
    owner = bare(model)._modules.get(OWNER)
    own = {f"{mine}{key}" for key in (owner.state_dict() if owner is not None else ())}
    own |= {f"{mine}{name}.temperature" for name in adapter_names(model)}  # which a task may add later
    model._keys_to_ignore_on_save = kept | own
    if not adapter_names(model):
        model.__dict__.pop("save_pretrained", None)  # which `checkpoints.adapters` put there


def _check_name(model: PreTrainedModel, name: str) -> None:
    if not name or "." in name:
        raise ValueError(f"an adapter cannot be called {name!r}: use a non-empty name without a dot")
    if name in adapter_names(model):
        raise ValueError(f"there is an adapter named {name!r} already: remove it first, or choose another name")
    if hasattr(nn.ModuleDict(), name):  # such as "train": torch refuses to have a module stand in for its method
        raise ValueError(f"an adapter cannot be called {name!r}: torch's modules use that name; choose another one")


def add_set(model: PreTrainedModel, config: AdapterConfig, name: str) -> AdapterSet:
    """What `checkpoints.adapters.add_adapter` does, but for how the model is saved."""
    _check_name(model, name)
    built = backbone(model).new_set(config)  # before `adopt`: if it raises, nothing has changed
    adopt(model).sets[name] = built
    _exclude_from_saving(model)
    select_adapter(model, name)
    return built


def add_momentum(model: PreTrainedModel, source: str | None = None, name: str = "momentum") -> AdapterSet:
    """Add a frozen copy of a set, to be updated as its moving average; the selection stays as it is.

    This is all a momentum encoder is here: the backbone is shared, and `active_adapter(model, name)` runs it.
    """
    _check_name(model, name)
    twin = copy.deepcopy(adapter_set(model, source)).requires_grad_(False)
    twin.momentum_of = _name(model, source)
    adopt(model).sets[name] = twin
    _exclude_from_saving(model)
    return twin


def select_adapter(model: PreTrainedModel, name: str | None, trainable: bool = True) -> None:
    """Make `name` the set in use and, if `trainable`, the only one with gradients; None selects the bare base.

    The base is frozen. What others have put on the model, PEFT's LoRA say, trains or not as before.

    Example:
        >>> for name in ("boxes", "stars"):
        ...     _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=4), name)
        >>> ua.select_adapter(model, "boxes")
        >>> ua.adapter_set(model) is ua.adapter_set(model, "boxes")
        True
    """
    if name is not None:
        adapter_set(model, name)
    store = adopt(model)
    base = [parameter for _, parameter in base_parameters(model)]
    if store.trainable is None:
        store.trainable = [(parameter, parameter.requires_grad) for parameter in base]
    for parameter in base:
        parameter.requires_grad_(False)
    store.sets.requires_grad_(False)
    store.selected = name
    if name is not None and trainable:
        store.sets[name].requires_grad_(True)


@contextmanager
def active_adapter(model: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Within the block the set `name` is active (None: the bare base), in this thread or asynchronous task alone.

    What is trainable does not change, nor which set is selected; a thread that is started within begins with that one.

    Example:
        >>> for name in ("boxes", "stars"):
        ...     _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), name)
        >>> with ua.active_adapter(model, "boxes"):
        ...     ua.adapter_set(model) is ua.adapter_set(model, "boxes")
        True
        >>> ua.adapter_set(model) is ua.adapter_set(model, "stars")
        True
    """
    store = adopt(model)
    if name is not None and name not in store.sets:
        raise KeyError(f"no adapter named {name!r}: there is {', '.join(store.sets) or 'none'}")
    with store.using(name):
        yield


@contextmanager
def disable_adapter(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model computes what its bare base computes.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, init="released"))
        >>> adapted = ua.image_features(model, picture).feature
        >>> with ua.disable_adapter(model):
        ...     bare = ua.image_features(model, picture).feature
        >>> torch.equal(adapted, bare)
        False
    """
    with active_adapter(model, None):
        yield


def remove_adapter(model: PreTrainedModel, name: str | None = None) -> None:
    """Take a set out, the active one if None. With the last one gone the base is, bit for bit, what it was.

    So is what trains: the base's parameters have gradients again where they had them before the first set was added.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4))
        >>> ua.remove_adapter(model)
        >>> ua.adapter_names(model)
        []
    """
    name = _name(model, name)
    store = adopt(model)
    del store.sets[name]
    if store.selected == name:
        store.selected = None
    if not len(store.sets):
        for parameter, trained in store.trainable or ():
            parameter.requires_grad_(trained)
        store.trainable = None
        forget(model)
    _exclude_from_saving(model)


def forget(model: PreTrainedModel) -> None:
    """Undo `adopt` where no set is left, unless the base was rounded: then its hash before that is kept."""
    if OWNER in bare(model)._modules and not len(adopt(model).sets) and adopt(model).identity is None:
        restore(model)


def adapter_names(model: PreTrainedModel) -> list[str]:
    """The names of the sets in this model, oldest first.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), "boxes")
        >>> ua.adapter_names(model)
        ['boxes']
    """
    owner = bare(model)._modules.get(OWNER)
    return list(owner.keys()) if isinstance(owner, nn.ModuleDict) else []


def adapter_set(model: PreTrainedModel, name: str | None = None) -> AdapterSet:
    """The set of that name, the active one if None; `KeyError` names those there are.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=0))
        >>> sorted(ua.adapter_set(model).heads)
        ['itm_head', 'text_proj', 'vision_proj']
    """
    found = _name(model, name)
    return getattr(bare(model), OWNER)[found]  # type: ignore[no-any-return]


def _name(model: PreTrainedModel, name: str | None) -> str:
    """A name checked; None is the active set, or the only one where the bare base is active."""
    names = adapter_names(model)
    if name is None and names:
        name = adopt(model).name or (names[0] if len(names) == 1 else None)
        if name is None:
            raise KeyError(f"no adapter is active: name one of {', '.join(names)}")
    if name not in names:
        wanted = "" if name is None else f" named {name!r}"
        raise KeyError(f"no adapter{wanted}: there is {', '.join(names) or 'none'}")
    return str(name)


def active_settings(model: PreTrainedModel, name: str | None = None) -> InferenceSettings:
    """What a set must be asked with, the active one if None; of the bare base nothing is stated."""
    if name is not None:
        return adapter_set(model, name).settings
    active = adopt(model).active if OWNER in bare(model)._modules else None
    return NO_SETTINGS if active is None else active.settings


@torch.no_grad()
def update_momentum(model: PreTrainedModel, decay: float, source: str | None = None, name: str = "momentum") -> None:
    """Move the momentum set towards its source: m <- decay m + (1 - decay) p, once for each parameter."""
    online = adapter_set(model, source).parameters()
    momentum = adapter_set(model, name).parameters()
    torch._foreach_lerp_(list(momentum), [p.detach() for p in online], 1 - decay)


@dataclass(frozen=True)
class Counts:
    """Parameters as this project counts them.

    Args:
        trainable: every parameter with gradients: adapters, key/value adapters, heads.
        adapter: the same without heads.
        total: every parameter of the task model without adapters and without any momentum copy.
        embeddings: of these, the token embeddings.
        trainable_embeddings: of the token embeddings, those with gradients.
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
        """Adapters alone in percent of the base; the paper's 2.2% is this one."""
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


def count_parameters(model: PreTrainedModel) -> Counts:
    """Count structurally what the model trains now (tied weights once).

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=20, key_value=8))
        >>> counts = ua.count_parameters(model)
        >>> counts.adapter < counts.trainable < counts.total
        True
        >>> counts.trainable_percent < 2.2
        True
    """
    owner = bare(model)._modules.get(OWNER)
    of_sets = {id(p) for p in owner.parameters()} if owner is not None else set()
    sets = owner.values() if isinstance(owner, nn.ModuleDict) else ()
    heads = {id(p) for s in sets for part in (s.heads, s.scalars) for p in part.parameters()}  # type: ignore[union-attr]
    parameters = list(model.parameters())
    tokens = [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None]
    unique_tokens = {id(w): w for w in tokens}
    return Counts(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        adapter=sum(p.numel() for p in parameters if p.requires_grad and id(p) in of_sets and id(p) not in heads),
        total=sum(p.numel() for p in parameters if id(p) not in of_sets),
        embeddings=sum(w.numel() for w in unique_tokens.values()),
        trainable_embeddings=sum(w.numel() for w in unique_tokens.values() if w.requires_grad),
    )


def print_trainable_parameters(model: PreTrainedModel) -> None:
    """Print what the model trains now, as PEFT does: trainable, all (the sets included) and their share.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=20, key_value=8))
        >>> ua.print_trainable_parameters(model)  # doctest: +ELLIPSIS
        trainable params: ... || all params: ... || trainable%: ...
    """
    counts = count_parameters(model)
    owner = bare(model)._modules.get(OWNER)
    everything = counts.total + sum(p.numel() for p in (owner.parameters() if owner is not None else ()))
    share = 100 * counts.trainable / everything
    line = f"trainable params: {counts.trainable:,d} || all params: {everything:,d} || trainable%: {share:.4f}"
    sys.stdout.write(line + "\n")
