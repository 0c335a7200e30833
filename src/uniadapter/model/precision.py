"""Keep the frozen base in half precision, instead of having autocast convert it in every call."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.model.dispatch import adapter_store, backbone
from uniadapter.model.identity import identity_of


def round_frozen(model: PreTrainedModel, dtype: torch.dtype) -> int:
    """Convert the frozen matrices of a base to the dtype that autocast computes in.

    Autocast converts each frozen matrix in every call, and keeps the copy for the backward pass. Converted once, they
    take half the memory, and outputs are the same to the bit. Afterwards the model works only under autocast to that
    dtype, and `save_pretrained` writes rounded weights; adapter files still contain the base's hash from before.

    Args:
        model: of any family, with its base frozen.
        dtype: bfloat16 or float16.

    Returns:
        Number of matrices that were converted; trainable ones, heads, norms and embeddings are not.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4))
        >>> ua.round_frozen(model, torch.bfloat16) > 0
        True
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     found = ua.image_features(model, picture)
        >>> found.feature.dtype
        torch.float32
    """
    store = adapter_store(model)
    frozen = {
        id(module.weight): module
        for module in itertools.chain.from_iterable(stack.modules() for stack in backbone(model).transformer_stacks())
        if isinstance(module, nn.Linear) and not module.weight.requires_grad and module.weight.dtype != dtype
    }
    if frozen:
        store.identity = identity_of(model)
    for module in frozen.values():
        module.to(dtype)
    return len(frozen)
