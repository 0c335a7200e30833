"""Several models of one base in memory at once: what is equal in them is there once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.store import OWNER


def share_weights(*models: PreTrainedModel) -> int:
    """Let models use the same parameters where theirs are equal, and free the others.

    A retrieval, a question and a caption model of one base have the same visual encoder, and often the same text
    encoder. They must stay frozen: training one would change the others. Adapter sets are left alone.

    Args:
        models: in any order; the first keeps its own parameters.

    Returns:
        Bytes that were freed.
    """
    kept: dict[object, list[nn.Parameter]] = {}
    freed = 0
    for model in models:
        own: dict[int, nn.Parameter] = {}  # a tied parameter stays tied
        for module, name, parameter in _parameters(model):
            if id(parameter) not in own:
                alike = kept.setdefault((parameter.shape, parameter.dtype, parameter.device, _sample(parameter)), [])
                found = next((one for one in alike if one is parameter or one.equal(parameter)), None)
                if found is None:
                    alike.append(parameter)
                elif found is not parameter:
                    freed += parameter.nbytes
                own[id(parameter)] = parameter if found is None else found
            module._parameters[name] = own[id(parameter)]
    return freed


def _parameters(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for place, module in model.named_modules():
        if place.split(".")[0] != OWNER:
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield module, name, parameter


def _sample(values: Tensor) -> tuple[float, ...]:
    """A few of the values, which differ for most parameters that differ."""
    flat = values.detach().flatten()
    return tuple(flat[:: max(1, len(flat) // 4)][:4].tolist())
