"""Recognise the base that an adapter was trained on, by hashes of its tensors, in whatever dtype it is loaded.

An adapter's folder keeps hashes of the base's values in float32 and rounded to bfloat16 and float16, so that a base in
half precision can be compared as well. Parameters that others added, such as PEFT's LoRA, are left out. The matrices of
a quantised base cannot be compared; its biases and norms can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.model.dispatch import backbone
from uniadapter.model.store import OWNER, BaseIdentity, DType, store_of, unwrapped

_DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Names under which PEFT keeps the layer that it wraps.
_WRAPPED = ("base_layer", "original_module")


def base_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The base's own parameters by name, without any adapters, and tied ones once.

    Where PEFT has wrapped the model or one of its layers, the base's parameter is given, under its original name.
    """
    inner = unwrapped(model)
    wrapped = {name for name, module in inner.named_modules() if not module._modules.keys().isdisjoint(_WRAPPED)}
    for name, parameter in inner.named_parameters():
        own = _own_name(name, wrapped)
        if own is not None and own.split(".")[0] != OWNER:
            yield own, parameter


def foreign_parameter(model: nn.Module) -> str | None:
    """Name of a parameter that another library has added to the base, such as PEFT's LoRA; None if there is none."""
    own = {id(parameter) for _, parameter in base_parameters(model)}
    named = unwrapped(model).named_parameters()
    return next((name for name, one in named if id(one) not in own and name.split(".")[0] != OWNER), None)


def is_quantised(model: nn.Module) -> bool:
    """Whether any parameter of the base is not floating-point."""
    return any(not parameter.is_floating_point() for _, parameter in base_parameters(model))


def base_hash(model: PreTrainedModel) -> str:
    """A hash of the base's tensors, the same whether it was loaded from the hub, a folder or a `.pth` file.

    It covers names, shapes and float32 values, without heads (adapter files contain them), tied copies, and what PEFT
    has added. For a base that `round_frozen` has rounded, it is the hash from before.

    Returns:
        SHA-256 as 64 hexadecimal digits.

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
    """The hashes of a model's base, for an adapter's folder; from before, if `round_frozen` has rounded it."""
    kept = _kept_identity(model)
    if kept is not None:
        return kept
    lowest = _lowest(model)
    known: tuple[DType, ...] = ("float32", "bfloat16", "float16") if lowest == "float32" else (lowest,)
    tensors = {} if is_quantised(model) else _hashes(model, known)
    return BaseIdentity(lowest, tensors, _hashes(model, known, vectors=True))


def same_base(recorded: BaseIdentity, model: PreTrainedModel) -> bool | None:
    """Whether a model's base is the recorded one; None where their dtypes do not allow to tell.

    Two bases are compared in the less precise of their dtypes.
    """
    kept, quantised = _kept_identity(model), is_quantised(model) or not recorded.tensors
    wanted = recorded.vectors if quantised else recorded.tensors
    own = kept.dtype if kept is not None else _lowest(model)
    halves = {dtype for dtype in (own, recorded.dtype) if dtype != "float32"}
    if len(halves) > 1:
        return None  # one in bfloat16 and one in float16 cannot be compared
    common: DType = halves.pop() if halves else "float32"
    if common not in wanted:
        return None
    if kept is not None:
        return (kept.vectors if quantised else kept.tensors).get(common) == wanted[common]
    return _hashes(model, (common,), vectors=quantised)[common] == wanted[common]


def matches_hash(model: PreTrainedModel, sha256: str) -> bool | None:
    """As `same_base`, for folders of version 0.1.0, which hold one hash without its dtype."""
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
    """A parameter's name in the base, without PEFT's wrappers; None for a parameter that PEFT has added."""
    parts = name.split(".")
    if any(".".join(parts[:at]) in wrapped and parts[at] not in _WRAPPED for at in range(len(parts))):
        return None
    return ".".join(part for part in parts if part not in _WRAPPED)


def _lowest(model: nn.Module) -> DType:
    """bfloat16 or float16 if one of the base's tensors has that dtype; else float32."""
    found = {parameter.dtype for _, parameter in base_parameters(model)}
    return next((name for name in ("bfloat16", "float16") if _DTYPES[name] in found), "float32")


def _hashes(model: nn.Module, dtypes: tuple[DType, ...], vectors: bool = False) -> dict[DType, str]:
    """Hashes of the base's tensors, or of its vectors alone, rounded to each dtype."""
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
