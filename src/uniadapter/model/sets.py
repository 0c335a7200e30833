"""Named adapter sets of a model: add, select, disable and remove, with the semantics of PEFT's methods."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.config import AdapterConfig
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.dispatch import adapter_store, backbone, restore
from uniadapter.model.identity import base_parameters
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings
from uniadapter.model.store import OWNER, store_of, unwrapped

logger = logging.getLogger(__name__)

__all__ = [
    "active_adapter",
    "active_settings",
    "adapter_names",
    "adapter_set",
    "add_momentum",
    "add_set",
    "disable_adapter",
    "remove_adapter",
    "select_adapter",
    "update_momentum",
]


def _exclude_from_saving(model: PreTrainedModel) -> None:
    """Keep the keys of adapter sets out of what `save_pretrained` writes as the base."""
    model = unwrapped(model)
    mine = f"{OWNER}."
    kept = {key for key in model._keys_to_ignore_on_save or () if not key.startswith(mine)}
    owner = unwrapped(model)._modules.get(OWNER)
    own = {f"{mine}{key}" for key in (owner.state_dict() if owner is not None else ())}
    own |= {f"{mine}{name}.temperature" for name in adapter_names(model)}  # a task may add one later
    model._keys_to_ignore_on_save = kept | own
    if not adapter_names(model):
        model.__dict__.pop("save_pretrained", None)  # set by `checkpoints.adapters`


def _check_name(model: PreTrainedModel, name: str) -> None:
    if not name or "." in name:
        raise ValueError(f"an adapter cannot be called {name!r}: use a non-empty name without a dot")
    if name in adapter_names(model):
        raise ValueError(f"there is an adapter named {name!r} already: remove it first, or choose another name")
    if hasattr(nn.ModuleDict(), name):  # such as "train": torch refuses a submodule of that name
        raise ValueError(f"an adapter cannot be called {name!r}: torch's modules use that name; choose another one")


def add_set(model: PreTrainedModel, config: AdapterConfig, name: str) -> AdapterSet:
    """Add a new set, freeze the base and select the set; see `add_adapter`, which also has the model save it.

    Raises:
        TypeError: the model cannot be adapted.
        ValueError: the name is taken, empty, has a dot, or is one that torch's modules use themselves.
    """
    _check_name(model, name)
    built = backbone(model).new_set(config)  # before `adapter_store`: if it raises, nothing has changed
    adapter_store(model).sets[name] = built
    _exclude_from_saving(model)
    select_adapter(model, name)
    return built


def add_momentum(model: PreTrainedModel, source: str | None = None, name: str = "momentum") -> AdapterSet:
    """Add a frozen copy of a set, to be updated as its moving average (see `update_momentum`).

    It is the momentum encoder: the frozen backbone is shared, and `active_adapter(model, name)` activates the copy. The
    selected set does not change.

    Args:
        model: holds the set.
        source: name of the set to copy; None takes the active one.
        name: of the copy.

    Raises:
        KeyError: there is no set `source`.
        ValueError: `name` is taken.
    """
    _check_name(model, name)
    copied = copy.deepcopy(adapter_set(model, source)).requires_grad_(False)
    copied.momentum_of = _name(model, source)
    adapter_store(model).sets[name] = copied
    _exclude_from_saving(model)
    return copied


def select_adapter(model: PreTrainedModel, name: str | None, trainable: bool = True) -> None:
    """Make a set the active one; all other sets and the base get no gradients.

    Parameters that other libraries have added, such as PEFT's LoRA, are not touched.

    Args:
        model: holds the sets.
        name: of the set; None selects the base alone.
        trainable: whether the set's parameters get gradients.

    Raises:
        KeyError: there is no such set; names those there are.

    Example:
        >>> for name in ("boxes", "stars"):
        ...     _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=4), name)
        >>> ua.select_adapter(model, "boxes")
        >>> ua.adapter_set(model) is ua.adapter_set(model, "boxes")
        True
    """
    if name is not None:
        adapter_set(model, name)
    store = adapter_store(model)
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
def active_adapter(model: PreTrainedModel, name: str | Sequence[str | None] | None) -> Iterator[None]:
    """Within the block the set `name` is active, in this thread or asynchronous task alone.

    Neither what is trainable nor the selected set changes; a thread that is started in the block uses the selected one.

    With a list, as PEFT's `adapter_names`, one batch serves several adapters: each row uses its own set, in one forward
    pass through the frozen base. What a row is depends on the call: a picture or video of `encode_visual`, a text of
    `encode_text`, a pair of `fuse` and `match`, a row of the context that a decoder attends to, an item of a batch of
    transformers' own `forward`. A visual in several pairs must have the same set in all of them.

    Args:
        model: holds the sets.
        name: of the set; None deactivates all, so that the model computes what its base does. A list names the set of
            each row.

    Raises:
        KeyError: there is no such set; names those there are.
        ValueError: in the block, a batch has another number of rows than there are names.

    Example:
        >>> for name in ("boxes", "stars"):
        ...     _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), name)
        >>> with ua.active_adapter(model, "boxes"):
        ...     ua.adapter_set(model) is ua.adapter_set(model, "boxes")
        True
        >>> ua.adapter_set(model) is ua.adapter_set(model, "stars")
        True
        >>> with ua.active_adapter(model, ["boxes", "stars", None]):
        ...     ua.encode_visual(model, torch.zeros(3, 1, 3, 96, 96)).feature.shape
        torch.Size([3, 64])
    """
    store = adapter_store(model)
    for one in [name] if name is None or isinstance(name, str) else name:
        if one is not None and one not in store.sets:
            raise KeyError(f"no adapter named {one!r}: there is {', '.join(store.sets) or 'none'}")
    with store.using(name):
        yield


@contextmanager
def disable_adapter(model: PreTrainedModel) -> Iterator[None]:
    """Within the block no set is active: the model computes what its base does.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, init="released"))
        >>> adapted = ua.image_features(model, picture).feature
        >>> with ua.disable_adapter(model):
        ...     without = ua.image_features(model, picture).feature
        >>> torch.equal(adapted, without)
        False
    """
    with active_adapter(model, None):
        yield


def remove_adapter(model: PreTrainedModel, name: str | None = None) -> None:
    """Remove a set. After the last one, the model is what it was before: classes, outputs and `requires_grad`.

    Args:
        model: holds the set.
        name: of the set; None takes the active one.

    Raises:
        KeyError: there is no such set.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4))
        >>> ua.remove_adapter(model)
        >>> ua.adapter_names(model)
        []
    """
    name = _name(model, name)
    store = adapter_store(model)
    del store.sets[name]
    if store.selected == name:
        store.selected = None
    if not len(store.sets):
        for parameter, trained in store.trainable or ():
            parameter.requires_grad_(trained)
        store.trainable = None
        restore_if_unused(model)
    _exclude_from_saving(model)


def restore_if_unused(model: PreTrainedModel) -> None:
    """Undo `adapter_store` if no set is left, unless `round_frozen` was called, since the base's hash would be lost."""
    store = store_of(model)
    if store is not None and not len(store.sets) and store.identity is None:
        restore(model)


def adapter_names(model: PreTrainedModel) -> list[str]:
    """The names of the model's adapter sets, oldest first.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), "boxes")
        >>> ua.adapter_names(model)
        ['boxes']
    """
    owner = unwrapped(model)._modules.get(OWNER)
    return list(owner.keys()) if isinstance(owner, nn.ModuleDict) else []


def adapter_set(model: PreTrainedModel, name: str | None = None) -> AdapterSet:
    """An adapter set of a model.

    Args:
        model: holds the sets.
        name: of the set; None takes the active one, or the only one.

    Raises:
        KeyError: there is no such set; names those there are.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=0))
        >>> sorted(ua.adapter_set(model).heads)
        ['itm_head', 'text_proj', 'vision_proj']
    """
    found = _name(model, name)
    return getattr(unwrapped(model), OWNER)[found]  # type: ignore[no-any-return]


def _name(model: PreTrainedModel, name: str | None) -> str:
    """A checked name; None is the active set, or the only one where none is active."""
    names = adapter_names(model)
    if name is None and names:
        name = adapter_store(model).name or (names[0] if len(names) == 1 else None)
        if name is None:
            raise KeyError(f"no adapter is active: name one of {', '.join(names)}")
    if name not in names:
        wanted = "" if name is None else f" named {name!r}"
        raise KeyError(f"no adapter{wanted}: there is {', '.join(names) or 'none'}")
    return str(name)


def active_settings(model: PreTrainedModel, name: str | None = None) -> InferenceSettings:
    """The inference settings of a set, the active one if None; for the base alone, settings that state nothing."""
    if name is not None:
        return adapter_set(model, name).settings
    active = adapter_store(model).single if OWNER in unwrapped(model)._modules else None
    return NO_SETTINGS if active is None else active.settings


@torch.no_grad()
def update_momentum(model: PreTrainedModel, decay: float, source: str | None = None, name: str = "momentum") -> None:
    """Update the momentum copy m of a set p: m <- decay m + (1 - decay) p, for every parameter.

    Args:
        model: holds both.
        decay: 0.995 in BLIP.
        source: name of the trained set; None takes the active one.
        name: of the momentum copy.
    """
    online = adapter_set(model, source).parameters()
    momentum = adapter_set(model, name).parameters()
    torch._foreach_lerp_(list(momentum), [p.detach() for p in online], 1 - decay)
