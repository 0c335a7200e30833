"""Ranges of values in the `config.json` of any base, and checks that depend on several of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

from pydantic import ConfigDict, Field
from transformers.activations import ACT2FN

from uniadapter.errors import CheckpointError
from uniadapter.files.schema import SchemaError

T = TypeVar("T")

Layers = Annotated[int, Field(ge=1, le=256)]
Size = Annotated[int, Field(ge=1, le=1 << 16)]
Vocabulary = Annotated[int, Field(ge=3, le=1 << 22)]
Token = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
IGNORING = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class TransformerValues(Protocol):
    """The values of a transformer that `check_sizes` compares."""

    hidden_size: Size
    num_attention_heads: Size
    hidden_act: str


class VisionValues(TransformerValues, Protocol):
    """Those of a visual encoder."""

    image_size: Size
    patch_size: Size


def read_values(file: Path, read: Callable[[], T]) -> T:
    """What `read` gives; if the file's content is wrong or it cannot be read, `CheckpointError` that names it."""
    try:
        return read()
    except SchemaError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{file}: could not be read ({error.strerror or error})") from error


def check_sizes(file: Path, vision: VisionValues, parts: Mapping[str, TransformerValues]) -> None:
    """Check attention heads, activations, and that a picture holds a patch.

    Args:
        file: for errors.
        vision: the visual encoder's values.
        parts: the values of every transformer, the visual encoder's among them, by their names in the file.

    Raises:
        CheckpointError: names the file and the value.
    """
    for name, part in parts.items():
        if part.hidden_size % part.num_attention_heads:
            raise CheckpointError(
                f"{file}: {name} has {part.num_attention_heads} attention heads, which do not divide its hidden_size "
                f"of {part.hidden_size}"
            )
        if part.hidden_act not in ACT2FN:
            raise CheckpointError(f"{file}: {name}.hidden_act is {part.hidden_act[:40]!r}, which transformers lacks")
    if vision.image_size < vision.patch_size:
        raise CheckpointError(f"{file}: pictures of {vision.image_size} px are smaller than their patches")
