"""The named adapter sets of one model, which of them is active, and the base classes of adapted layers.

To inject adapters, the `__class__` of existing layers is replaced by a subclass. Weights stay where they are, so the
base's state-dict keys do not change. The model owns its sets as one submodule, `uniadapters`; layers reach them through
an `AdapterStore`, which torch does not register.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.errors import ConfigError
from uniadapter.model.adapter import Use
from uniadapter.model.adapter_set import AdapterSet, Role
from uniadapter.model.mixed_sets import MixedSets, Part, apply_head

DType = Literal["float32", "bfloat16", "float16"]

OWNER = "uniadapters"  # the submodule that owns the sets; its keys are never saved with the base
ACTIVE = ""  # means "the set that is active at the time of the call"; no set can have this name


@dataclass(frozen=True)
class BaseIdentity:
    """Hashes that identify a base.

    Args:
        dtype: the least precise dtype among its tensors.
        tensors: from dtype to the hash of all tensors rounded to it; empty for a quantised base.
        vectors: the same for biases and norms alone.
    """

    dtype: DType
    tensors: dict[DType, str] = field(default_factory=dict)
    vectors: dict[DType, str] = field(default_factory=dict)


class AdapterStore:
    """The adapter sets of one model, and which one is active; all adapted layers of the model refer to it.

    A plain object, so that torch does not register the sets a second time under each layer. The model has one selected
    set; a `with store.using(name)` block may activate another one, for its own thread or asynchronous task alone.

    Args:
        sets: the sets by name; the model's submodule `uniadapters`.

    Attributes:
        selected: name of the set that is active outside of `using` blocks; None for the base alone.
        trainable: the base's parameters and their `requires_grad` from before the first set was added.
        identity: of the base before `round_frozen` rounded its weights; None where it did not.
    """

    def __init__(self, sets: nn.ModuleDict) -> None:
        self.sets = sets
        self.selected: str | None = None
        self.trainable: list[tuple[nn.Parameter, bool]] | None = None
        self.identity: BaseIdentity | None = None

    @property
    def _chosen(self) -> str | MixedSets | None:
        return _chosen.get().get(self, self.selected)

    @property
    def name(self) -> str | None:
        """Name of the set that is active in this thread or task; None for the base alone.

        Raises:
            ValueError: the rows of a batch use different sets.
        """
        name = self._chosen
        if isinstance(name, MixedSets):
            raise ValueError("the rows of this batch use different adapters, where one of them has to be named")
        return name if name in self.sets._modules else None  # it may have been removed within the block

    @property
    def mixed(self) -> MixedSets | None:
        """What the rows of a batch use where they use different sets, else None."""
        chosen = self._chosen
        return chosen if isinstance(chosen, MixedSets) else None

    @property
    def active(self) -> AdapterSet | MixedSets | None:
        """What is active in this thread or task; None for the base alone."""
        return self.named(ACTIVE)

    @property
    def single(self) -> AdapterSet | None:
        """The one set that is active; None for the base alone.

        Raises:
            ValueError: the rows of a batch use different sets.
        """
        return self.sets._modules.get(self.name)  # type: ignore[arg-type,return-value]

    def named(self, name: str | None) -> AdapterSet | MixedSets | None:
        """The set of a name (`ACTIVE`: the active one); None for the base alone."""
        if name == ACTIVE:
            if self.mixed is not None:
                return self.mixed
            name = self.name
        return self.sets._modules.get(name)  # type: ignore[arg-type,return-value]

    @contextmanager
    def using(self, name: str | Sequence[str | None] | None) -> Iterator[None]:
        """Within the block the set `name` is active, in this thread or task; None for the base alone.

        Args:
            name: of the set; several are those of a batch's rows.
        """
        chosen: str | MixedSets | None
        if name is None or isinstance(name, str):
            chosen = name
        else:
            chosen = MixedSets.of([self.sets._modules.get(one) for one in name], name)  # type: ignore[arg-type,misc]
        with self._using(chosen):
            yield

    def using_sets(self, sets: Sequence[AdapterSet | None], names: Sequence[str]) -> AbstractContextManager[None]:
        """A block in which each row of a batch uses a given set, which may be another model's of the same base.

        Args:
            sets: of the rows; None is the base alone.
            names: of the rows' sets, for errors.
        """
        return self._using(MixedSets.of(sets, names))

    @contextmanager
    def _using(self, chosen: str | MixedSets | None) -> Iterator[None]:
        token = _chosen.set({**_chosen.get(), self: chosen})
        try:
            yield
        finally:
            _chosen.reset(token)

    def rows(self, index: Tensor | slice) -> AbstractContextManager[None]:
        """A block in which the rows of a batch are arranged anew, row i being what row `index[i]` was.

        It matters where rows use different sets, and does nothing otherwise.
        """
        return nullcontext() if self.mixed is None else self._using(self.mixed.at(index))


# The sets that the `using` blocks around the current call have chosen, by model.
_chosen: ContextVar[Mapping[AdapterStore, str | MixedSets | None]] = ContextVar(
    "uniadapter_chosen", default=MappingProxyType({})
)


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The model without PEFT's wrapper, if it has one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator,return-value]


def store_of(model: nn.Module) -> AdapterStore | None:
    """The store of a model; None if its layers have not been adapted."""
    inner = unwrapped(model)
    return inner._uniadapter_store if OWNER in inner._modules else None  # type: ignore[return-value]


class Adapted:
    """Base class of adapted modules, to be inherited before the original: `class AdaptedLayer(Adapted, Layer)`.

    Attributes:
        original: the class of transformers or torch that the module had before.
        store: the model's adapter sets.
        role: the part of the model that the module is in: "vision", "encoder" or "decoder".
        index: of its layer in that part, counted from 0.
    """

    original: ClassVar[type[nn.Module]]
    store: AdapterStore
    role: Role
    index: int

    @torch.compiler.disable
    def _adapter(self, use: Use, name: str | None = ACTIVE, residual: bool = False) -> Part | None:
        found = self.store.named(name)
        return None if found is None else found.adapter(self.role, self.index, use, residual)


class CheckpointedLayer(Adapted):
    """An adapted layer under gradient checkpointing: recomputed with the set that was active in its forward pass.

    The backward pass may run in another thread, or after the block that activated the set has ended, so the set's name
    is passed on as the keyword argument `adapter`.
    """

    training: bool
    gradient_checkpointing: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - as nn.Module's
        if self.gradient_checkpointing and self.training:
            kwargs["adapter"] = self.store.name
        return super().__call__(*args, **kwargs)


class AdaptedHead(Adapted, nn.Linear):
    """A head of the base; where the active set has a trained copy of it, the copy is used instead."""

    original = nn.Linear
    name: str

    @property
    def in_use(self) -> nn.Linear | None:
        """The active set's copy, or None; where rows use different sets, the first copy among theirs."""
        active = self.store.active
        if isinstance(active, MixedSets):
            return next((one for one in active.head(self.name) if one is not None), None)
        return None if active is None else active.head(self.name)

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`, [..., d] to [..., out]."""
        active = self.store.active
        if isinstance(active, MixedSets):
            return active.apply_heads(active.head(self.name), input, super().forward)
        copied = self.in_use
        return super().forward(input) if copied is None else apply_head(copied, input)


def head_dtype(head: nn.Module, other: torch.dtype) -> torch.dtype:
    """The dtype that a head computes in: that of its weights, or `other` if they are quantised."""
    copied = head.in_use if isinstance(head, AdaptedHead) else None
    weight = (head if copied is None else copied).weight
    return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else other


@functools.cache
def _check_arguments(cls: type[nn.Module]) -> None:
    """Raise `ConfigError` if transformers' class takes an argument that `cls` would lose in its `**kwargs`.

    A newer transformers may call one otherwise, as 5.24 did with the cache: results would be wrong without a word.
    """
    own, original = (inspect.signature(one.forward).parameters for one in (cls, cls.__dict__["original"]))
    if any(one.kind is one.VAR_POSITIONAL for one in own.values()):  # such a class passes on whatever it gets
        return
    for name, parameter in list(original.items())[2:]:  # but self and the states, which come by position
        if name not in own and parameter.kind is not parameter.VAR_KEYWORD:
            raise ConfigError(
                f"transformers {transformers.__version__} passes {name!r} to {cls.__dict__['original'].__name__}, "
                "which this version of uniadapter does not know: install a newer uniadapter or an older transformers"
            )


def set_adapted_class(module: nn.Module, cls: type[nn.Module], store: AdapterStore, role: Role, index: int = 0) -> None:
    """Replace a module's class by an adapted subclass; its weights stay where they are.

    Args:
        module: an instance of the class that `cls` adapts.
        cls: the subclass, which has `Adapted` and the module's class as bases.
        store: the model's adapter sets.
        role: the part of the model that the module is in.
        index: of its layer in that part.

    Raises:
        ConfigError: the installed transformers passes something to the module that `cls` does not know.
    """
    _check_arguments(cls)
    module.__class__ = cls
    module.store, module.role, module.index = store, role, index  # type: ignore[assignment]


def adapt_heads(heads: Mapping[str, nn.Linear], store: AdapterStore) -> None:
    """Let heads, by name, give way to the active set's copies; a quantised one computes in its own way and stays."""
    for name, head in heads.items():
        if head.weight.is_floating_point():
            set_adapted_class(head, AdaptedHead, store, "vision")
            head.name = name  # type: ignore[assignment]


def restore_classes(model: nn.Module) -> None:
    """Undo `set_adapted_class` for every module of a model, and remove its references to the store."""
    for module in model.modules():
        original = type(module).__dict__.get("original")
        if original is not None:
            names = ("store", "role", "index", "name") if isinstance(module, Adapted) else ()
            module.__class__ = original
            for name in names:
                module.__dict__.pop(name, None)
