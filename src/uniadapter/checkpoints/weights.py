"""Weights in files: their names and shapes are checked before values are read or a model is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from uniadapter.checkpoints.pth import read_pth
from uniadapter.errors import CheckpointError
from uniadapter.files.schema import SchemaError, read_json

_FLOATS = {"F64", "F32", "F16", "BF16"}  # as safetensors calls them


@dataclass
class Weights:
    """The weights of a folder, not yet read where the format has a header.

    Args:
        files: safetensors files, whose values have not been read.
        state: tensors of files in other formats, already read.
        shapes: of all tensors, by name.
    """

    files: list[Path]
    state: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]

    def load(self) -> dict[str, Tensor]:
        """All tensors by name, on the CPU."""
        return {**self.state, **{name: tensor for file in self.files for name, tensor in load_file(file).items()}}


def open_weights(folder: Path) -> Weights:
    """The weights of a folder of transformers files, in transformers' order of preference.

    Raises:
        CheckpointError: there are none, or they are broken; names the file.
    """
    safetensors = _files(folder, "model.safetensors")
    if safetensors:
        return Weights(safetensors, {}, {key: shape for file in safetensors for key, shape in _header(file).items()})
    state = {key: tensor for file in _files(folder, "pytorch_model.bin") for key, tensor in read_pth(file).items()}
    if not state:
        raise CheckpointError(f"{folder}: has no weights: neither model.safetensors nor pytorch_model.bin is there")
    return Weights([], state, {key: tuple(tensor.shape) for key, tensor in state.items()})


def elements(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header.

    Raises:
        CheckpointError: it is broken; names the file.
    """
    return sum(math.prod(shape) for shape in _header(file).values())


def _files(folder: Path, name: str) -> list[Path]:
    """One file, or its shards, or an empty list."""
    single, index = folder / name, folder / f"{name}.index.json"
    return [single] if single.is_file() else _indexed(index) if index.is_file() else []


def _indexed(index: Path) -> list[Path]:
    """The shards that an index file names."""
    try:
        content = read_json(index)
    except (SchemaError, OSError) as error:
        raise CheckpointError(str(error)) from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no 'weight_map' from names to files")
    files = []
    for name in dict.fromkeys(map(str, weight_map.values())):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: names the file {name[:80]!r}, which is not in this folder")
        files.append(index.parent / name)
    return files


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name in a safetensors file; safetensors checks that the file is as long as its header says."""
    shapes = {}
    try:
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                tensor = opened.get_slice(key)
                shapes[key] = tuple(tensor.get_shape())
                if tensor.get_dtype() not in _FLOATS and not key.endswith("position_ids"):
                    raise CheckpointError(f"{file}: {key} holds {tensor.get_dtype()}, where a weight is a float")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error}); is it complete?") from error
    return shapes


def expected_shapes(cls: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's weights by name, computed on the "meta" device."""
    with torch.device("meta"):
        model = cls(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_shapes(
    where: str,
    cls: type[PreTrainedModel],
    config: PreTrainedConfig,
    found: Mapping[str, tuple[int, ...]],
    fresh: tuple[str, ...] = (),
    tied: tuple[str, ...] = (),
) -> list[str]:
    """Compare the shapes in a file with those of a model.

    Args:
        where: the file or folder, for errors.
        cls: the model's class.
        config: of the model.
        found: shapes in the file, by name.
        fresh: submodules that may be missing, and are then initialised randomly.
        tied: prefixes of names that may be missing, since their weights are tied to others.

    Returns:
        Names of the submodules that are missing.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    expected = expected_shapes(cls, config)
    wrong = [name for name, shape in expected.items() if found.get(name, shape) != shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{where}: {name} has the shape {list(found[name])}, where its other sizes ask for {list(expected[name])}"
            + (f" (and {len(wrong) - 1} more are wrong)" if len(wrong) > 1 else "")
        )
    missing = [name for name in expected if name not in found and not name.startswith(tied)]
    layers = [name for name in missing if name.split(".")[0] not in fresh]
    if layers:
        raise CheckpointError(
            f"{where}: lacks {len(layers)} tensors that {cls.__name__} needs, such as {layers[0]}; "
            "it was made for another task, or is not whole: choose a base that fits"
        )
    return sorted({name.split(".")[0] for name in missing})


def check_finite(where: str, model: PreTrainedModel) -> None:
    """Raise `CheckpointError` if a weight is NaN or infinite, since every output would be NaN."""
    for name, parameter in model.named_parameters():
        if parameter.numel() and not all(torch.isfinite(end) for end in torch.aminmax(parameter.detach())):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise CheckpointError(f"{where}: {name} holds NaN or infinite values in {kind}; the file is damaged")
