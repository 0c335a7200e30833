"""The named sets of one model, which of them is active, and what the re-typed layers of every family share.

Injecting re-types existing layers to subclasses of their own class. Their weights stay where they are, so that the
base's state-dict keys do not change; the model owns its sets under one name, and layers reach them by an unregistered
`AdapterStore`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.adapter import UniAdapter, Use, lifted
from uniadapter.model.adapter_set import AdapterSet

if TYPE_CHECKING:
    from uniadapter.model.identity import BaseIdentity

Role = Literal["vision", "encoder", "decoder"]

OWNER = "uniadapters"  # attribute of the model that owns the sets; its keys are never saved with the base
ACTIVE = ""  # stands for the set that is active where it is asked for; no set can be called so


class AdapterStore:
    """What every re-typed module of one model points at: the named sets, and which one is active.

    A plain object, so that torch does not register the sets a second time under each layer. The model has one selected
    set; a block (`using`) may have another one active, for its own thread or asynchronous task alone.
    """

    def __init__(self, sets: nn.ModuleDict) -> None:
        self.sets = sets
        self.selected: str | None = None
        self.trainable: list[tuple[nn.Parameter, bool]] | None = None  # the base's, as it was before the first set
        self.identity: BaseIdentity | None = None  # of the base as it was loaded, where its weights were rounded since

    @property
    def name(self) -> str | None:
        """Name of the active set here, or None for the bare base."""
        name = _chosen.get().get(self, self.selected)
        return name if name in self.sets._modules else None  # it may have been removed within the block

    @property
    def active(self) -> AdapterSet | None:
        """The active set here, or None for the bare base."""
        return self.named(ACTIVE)

    def named(self, name: str | None) -> AdapterSet | None:
        """The set of that name, or None for the bare base."""
        return self.sets._modules.get(self.name if name == ACTIVE else name)  # type: ignore[arg-type,return-value]

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Within the block, in this thread or asynchronous task, the set `name` is active; None is the bare base."""
        token = _chosen.set({**_chosen.get(), self: name})
        try:
            yield
        finally:
            _chosen.reset(token)


# For each model within a block that chooses, the set that it chose.
_chosen: ContextVar[Mapping[AdapterStore, str | None]] = ContextVar("uniadapter_chosen", default=MappingProxyType({}))


def bare(model: nn.Module) -> PreTrainedModel:
    """The model itself, where it came in PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator,return-value]


def store_of(model: nn.Module) -> AdapterStore | None:
    """The store of a model whose layers are re-typed, else None."""
    inner = bare(model)
    return inner._uniadapter_store if OWNER in inner._modules else None  # type: ignore[return-value]


class Adapted:
    """What the re-typed modules share: a store, a role and a layer index; a subclass of it comes before the original.

    Attributes:
        original: the class of transformers or torch that the module has without adapters.
    """

    original: ClassVar[type[nn.Module]]
    store: AdapterStore
    role: Role
    index: int

    @torch.compiler.disable
    def _adapter(self, use: Use, name: str | None = ACTIVE) -> UniAdapter | None:
        found = self.store.named(name)
        return None if found is None else found.adapter(self.role, self.index, use)


class Recomputed(Adapted):
    """A layer that gradient checkpointing computes again: with the set that was active in its forward pass.

    The backward pass may run in a thread of autograd's, or after the block that chose the set has ended.
    """

    training: bool
    gradient_checkpointing: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - as nn.Module's
        if self.gradient_checkpointing and self.training:
            kwargs["adapter"] = self.store.name
        return super().__call__(*args, **kwargs)


class AdaptedHead(Adapted, nn.Linear):
    """A head of the base that gives way to the active set's copy of it."""

    original = nn.Linear
    name: str

    @property
    def in_use(self) -> nn.Linear | None:
        """The active set's copy, if it has one."""
        active = self.store.active
        return active.heads[self.name] if active is not None and self.name in active.heads else None  # type: ignore[return-value]

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`, [..., d] to [..., out]."""
        copied = self.in_use
        if copied is None:
            return super().forward(input)
        inner = lifted(input, copied.weight)
        out = copied(inner)
        return out if inner is input else out.to(input.dtype)


def head_dtype(head: nn.Module, other: torch.dtype) -> torch.dtype:
    """What a head computes in; `other` where it is quantised."""
    copied = head.in_use if isinstance(head, AdaptedHead) else None
    weight = (head if copied is None else copied).weight
    return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else other


def retype(module: nn.Module, cls: type[nn.Module], store: AdapterStore, role: Role, index: int = 0) -> None:
    """Give a module the adapted class; its weights stay where they are."""
    module.__class__ = cls
    module.store, module.role, module.index = store, role, index  # type: ignore[assignment]


def original_types(model: nn.Module) -> None:
    """Undo every re-typing: each module has its original type again, and no trace of the store is left on it."""
    for module in model.modules():
        original = type(module).__dict__.get("original")
        if original is not None:
            names = ("store", "role", "index", "name") if isinstance(module, Adapted) else ()
            module.__class__ = original
            for name in names:
                module.__dict__.pop(name, None)
