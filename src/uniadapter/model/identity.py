"""Which base an adapter was made for: hashes of its tensors that hold in whatever dtype it is loaded.

The hash of a rounded base is the hash of its rounded values, so a base in bfloat16 is told by what the base in float32
becomes when rounded. What others put on the model, PEFT's LoRA say, is not counted; of a quantised base the matrices
cannot be compared, its biases and norms can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.model.backbone import backbone
from uniadapter.model.store import OWNER, bare, store_of

DType = Literal["float32", "bfloat16", "float16"]
_DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Where PEFT keeps the layer that it has put its own around.
_WRAPPED = ("base_layer", "original_module")


@dataclass(frozen=True)
class BaseIdentity:
    """What tells a base.

    Args:
        dtype: the lowest that its tensors had: what is finer than it was not seen.
        tensors: hash of all tensors rounded to a dtype, for each that can be told; none where it was quantised.
        vectors: the same over biases and norms alone.
    """

    dtype: DType
    tensors: dict[DType, str] = field(default_factory=dict)
    vectors: dict[DType, str] = field(default_factory=dict)


def base_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The base's parameters by the names that they have in it: no adapters, nobody's, and tied ones once.

    Where PEFT has wrapped the model or put a layer around one of the base's, the base's is given, under its own name.
    """
    inner = bare(model)
    wrapped = {name for name, module in inner.named_modules() if not module._modules.keys().isdisjoint(_WRAPPED)}
    for name, parameter in inner.named_parameters():
        own = _own_name(name, wrapped)
        if own is not None and own.split(".")[0] != OWNER:
            yield own, parameter


def foreign_parameter(model: nn.Module) -> str | None:
    """Name of a parameter that somebody else has put on the base, PEFT's LoRA say, if there is one."""
    own = {id(parameter) for _, parameter in base_parameters(model)}
    named = bare(model).named_parameters()
    return next((name for name, one in named if id(one) not in own and name.split(".")[0] != OWNER), None)


def is_quantised(model: nn.Module) -> bool:
    """Whether matrices of the base are kept in another form than as floating-point numbers."""
    return any(not parameter.is_floating_point() for _, parameter in base_parameters(model))


def base_hash(model: PreTrainedModel) -> str:
    """A hash of the base's tensors that is the same from hub, folder and `.pth`.

    Over names, shapes and float32 values of everything but heads (an adapter file carries its own) and tied copies;
    what PEFT has put on the model is left out. Of a base that was rounded (`precision.round_frozen`) it is the hash
    before.

    Raises:
        ValueError: the base is quantised.

    Example:
        >>> before = ua.base_hash(model)
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4))
        >>> ua.base_hash(model) == before
        True
    """
    kept = _kept_identity(model)
    if kept is not None and kept.dtype in kept.tensors:
        return kept.tensors[kept.dtype]
    if is_quantised(model):
        raise ValueError("the base is quantised, so its values cannot be hashed: load it in a floating-point dtype")
    return _hashes(model, ("float32",))["float32"]


def identity_of(model: PreTrainedModel) -> BaseIdentity:
    """What an adapter's folder keeps of its base; of one that was rounded by `round_frozen`, as it was before."""
    kept = _kept_identity(model)
    if kept is not None:
        return kept
    lowest = _lowest(model)
    known: tuple[DType, ...] = ("float32", "bfloat16", "float16") if lowest == "float32" else (lowest,)
    tensors = {} if is_quantised(model) else _hashes(model, known)
    return BaseIdentity(lowest, tensors, _hashes(model, known, vectors=True))


def same_base(recorded: BaseIdentity, model: PreTrainedModel) -> bool | None:
    """Whether a model's base is the one recorded; None where their dtypes leave that open.

    Two bases are compared in the lower of their dtypes: finer differences could not be seen in it.
    """
    kept, quantised = _kept_identity(model), is_quantised(model) or not recorded.tensors
    wanted = recorded.vectors if quantised else recorded.tensors
    own = kept.dtype if kept is not None else _lowest(model)
    halves = {dtype for dtype in (own, recorded.dtype) if dtype != "float32"}
    if len(halves) > 1:
        return None  # rounded once to bfloat16 and once to float16, neither tells the other
    common: DType = halves.pop() if halves else "float32"
    if common not in wanted:
        return None
    if kept is not None:
        return (kept.vectors if quantised else kept.tensors).get(common) == wanted[common]
    return _hashes(model, (common,), vectors=quantised)[common] == wanted[common]


def matches_hash(model: PreTrainedModel, sha256: str) -> bool | None:
    """The same for folders that hold one hash alone, without the dtype that it was taken in."""
    kept = _kept_identity(model)
    if kept is not None:
        return sha256 in kept.tensors.values() or (None if kept.dtype != "float32" else False)
    if is_quantised(model):
        return None
    if sha256 == base_hash(model):
        return True
    if _lowest(model) != "float32":
        return None
    return sha256 in _hashes(model, ("bfloat16", "float16")).values()  # made on a base in half precision


def _kept_identity(model: nn.Module) -> BaseIdentity | None:
    store = store_of(model)
    return None if store is None else store.identity


def _own_name(name: str, wrapped: set[str]) -> str | None:
    """A parameter's name in the base, or None for one of somebody else's."""
    parts = name.split(".")
    if any(".".join(parts[:at]) in wrapped and parts[at] not in _WRAPPED for at in range(len(parts))):
        return None
    return ".".join(part for part in parts if part not in _WRAPPED)


def _lowest(model: nn.Module) -> DType:
    """bfloat16 or float16 where any of the base's tensors is; else float32, or what is finer."""
    found = {parameter.dtype for _, parameter in base_parameters(model)}
    return next((name for name in ("bfloat16", "float16") if _DTYPES[name] in found), "float32")


def _hashes(model: nn.Module, dtypes: tuple[DType, ...], vectors: bool = False) -> dict[DType, str]:
    """The hash of the base's tensors, or of its vectors alone, rounded to each dtype."""
    digests = {dtype: hashlib.sha256() for dtype in dtypes}
    seen: set[int] = set()
    heads = tuple(f"{place}." for place in backbone(model).heads.values())
    for name, tensor in sorted(base_parameters(model), key=lambda item: item[0]):
        if name.startswith(heads) or id(tensor) in seen or (vectors and tensor.ndim != 1):
            continue
        seen.add(id(tensor))
        values = tensor.detach().to("cpu", torch.float32)
        for dtype, digest in digests.items():
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(values.to(_DTYPES[dtype]).to(torch.float32).contiguous().numpy().data)
    return {dtype: digest.hexdigest() for dtype, digest in digests.items()}
