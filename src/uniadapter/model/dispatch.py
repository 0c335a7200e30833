"""A model seen through its family, and its layers prepared for adapters, whatever family it is of."""

from __future__ import annotations

import threading
from typing import TypeGuard

from torch import nn

from uniadapter.model.backbone import Backbone, DecodingBackbone, FusingBackbone
from uniadapter.model.families import families, family_of
from uniadapter.model.store import OWNER, AdapterStore, restore_classes, unwrapped

_lock = threading.Lock()


def backbone(model: nn.Module) -> Backbone:
    """The interface to a model, by its family.

    Args:
        model: of transformers, also in PEFT's wrapper.

    Raises:
        TypeError: no family has models of its `model_type`; names the known ones.
    """
    inner = unwrapped(model)
    kind = getattr(getattr(inner, "config", None), "model_type", None)
    try:
        family = family_of(kind)
    except LookupError as error:
        raise TypeError(f"{type(inner).__name__} cannot be adapted: {error}") from None
    found: Backbone = family.part("backbone")(inner)
    return found


def fusing(model: nn.Module) -> FusingBackbone:
    """As `backbone`, for functions that need a fused encoder.

    Raises:
        TypeError: the model has none.
    """
    found = backbone(model)
    if not _fuses(found):
        raise TypeError(f"{type(found.model).__name__} has no fused encoder: it compares texts and visuals by features")
    return found


def _fuses(found: Backbone) -> TypeGuard[FusingBackbone]:
    return isinstance(found, FusingBackbone) and found.layout.fuses


def fuses(model: nn.Module) -> bool:
    """Whether the model has a fused encoder, so that `fusing` finds one."""
    return _fuses(backbone(model))


def has_attention_maps(model: nn.Module) -> bool:
    """Whether words of texts attend to a visual's patches in the model, so that `fuse_with_weights` is possible."""
    found = backbone(model)
    return _fuses(found) and found.words_attend


def decoding(model: nn.Module) -> DecodingBackbone:
    """As `backbone`, for functions that need a text decoder.

    Raises:
        TypeError: the model has none.
    """
    found = backbone(model)
    if not isinstance(found, DecodingBackbone) or not found.layout.decodes:
        raise TypeError(f"{type(found.model).__name__} has no text decoder")
    return found


def task_of(model: nn.Module) -> str:
    """The model's task: "retrieval", "vqa" or "caption".

    Raises:
        TypeError: the model's class is none of its family's task classes.
    """
    found = backbone(model)
    if found.task is None:
        raise found.task_error()
    return found.task


def require_task(model: nn.Module, task: str, what: str) -> None:
    """Check that a model is for a task.

    Args:
        model: any model.
        task: "retrieval", "vqa" or "caption".
        what: name of the function that needs it, for the error.

    Raises:
        TypeError: names the class that is needed and how to load it.
    """
    found = backbone(model)
    if found.task == task:
        return
    family = families()[found.layout.family]
    needed = family.classes.get(task)
    if needed is None:
        raise TypeError(f"{what} needs a model for {task}, and {family.title} has none: see `uniadapter families`")
    base = getattr(found.model.config, "name_or_path", "") or "BASE"
    raise TypeError(
        f"{what} needs a {needed}, not a {type(found.model).__name__}: "
        f"load it by load_model({str(base)[-100:]!r}, {task!r})"
    )


def adapter_store(model: nn.Module) -> AdapterStore:
    """Give the model's layers their adapted classes, once; see `store.set_adapted_class`.

    No weight moves, and without an adapter set the outputs are the base's. A BLIP gains fused attention by it, and a
    cross-attention that applies its mask, which transformers' loses.

    Raises:
        TypeError: the model is of no family, or none of its task classes.
    """
    inner = unwrapped(model)
    if OWNER not in inner._modules:
        with _lock:  # several threads may use the model for the first time at once
            if OWNER not in inner._modules:
                seen = backbone(inner)
                _ = seen.shape  # raises for a model of no task class
                sets = nn.ModuleDict()
                store = AdapterStore(sets)
                try:
                    seen.inject(store)
                except BaseException:  # a layer that this version does not know: those before it are as they were
                    restore_classes(inner)
                    raise
                inner._uniadapter_store = store  # type: ignore[assignment]
                setattr(inner, OWNER, sets)  # last: it says that all is in place
    return inner._uniadapter_store  # type: ignore[return-value]


def restore(model: nn.Module) -> None:
    """Undo `adapter_store`: every layer gets its original class back, and the model loses its adapter sets."""
    inner = unwrapped(model)
    restore_classes(inner)
    if OWNER in inner._modules:
        delattr(inner, OWNER)
        del inner._uniadapter_store
