"""`config.json` of a BLIP-2, checked value by value before a model is made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from transformers import Blip2Config
from transformers.activations import ACT2FN

from uniadapter.checkpoints.bases import CONFIG
from uniadapter.errors import CheckpointError
from uniadapter.files.schema import SchemaError, read_json, validated

_Layers = Annotated[int, Field(ge=1, le=256)]
_Size = Annotated[int, Field(ge=1, le=1 << 16)]
_Token = Annotated[int, Field(ge=0)]
_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_IGNORING = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


@dataclass
class QFormerValues:
    """`qformer_config` of a BLIP-2's `config.json`; the defaults are transformers'."""

    __pydantic_config__: ClassVar[ConfigDict] = _IGNORING
    vocab_size: Annotated[int, Field(ge=3, le=1 << 22)] = 30522
    hidden_size: _Size = 768
    num_hidden_layers: _Layers = 12
    num_attention_heads: _Size = 12
    intermediate_size: _Size = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: _Share = 0.1
    attention_probs_dropout_prob: _Share = 0.1
    max_position_embeddings: _Size = 512
    initializer_range: _Positive = 0.02
    layer_norm_eps: _Positive = 1e-12
    pad_token_id: _Token | None = 0
    cross_attention_frequency: _Layers = 2
    use_qformer_text_input: bool = False


@dataclass
class VisionValues:
    """`vision_config` of a BLIP-2's `config.json`."""

    __pydantic_config__: ClassVar[ConfigDict] = _IGNORING
    hidden_size: _Size = 1408
    intermediate_size: _Size = 6144
    num_hidden_layers: _Layers = 39
    num_attention_heads: _Size = 16
    image_size: _Size = 224
    patch_size: _Size = 14
    hidden_act: str = "gelu"
    layer_norm_eps: _Positive = 1e-6
    attention_dropout: _Share = 0.0
    initializer_range: _Positive = 1e-10
    qkv_bias: bool = True


@dataclass
class BaseValues:
    """`config.json` of a BLIP-2, but for its language model, which retrieval has not."""

    __pydantic_config__: ClassVar[ConfigDict] = _IGNORING
    vision_config: VisionValues = field(default_factory=VisionValues)
    qformer_config: QFormerValues = field(default_factory=QFormerValues)
    num_query_tokens: Annotated[int, Field(ge=1, le=4096)] = 32
    image_text_hidden_size: _Size = 256
    image_token_index: _Token | None = None
    initializer_factor: _Positive = 1.0
    initializer_range: _Positive = 0.02
    uniadapter_method: Literal["full_fine_tuning"] | None = None  # `app.evaluation_folder.METHOD_KEY`


def read_base_config(folder: Path) -> Blip2Config:
    """The config of a folder of transformers files.

    Raises:
        CheckpointError: it is missing, broken, or holds values that no BLIP-2 for retrieval can have; names the file.
    """
    file = folder / CONFIG
    try:
        read = validated(read_json(file), BaseValues, str(file))
    except SchemaError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{file}: could not be read ({error.strerror or error})") from error
    _check_values(read, file)
    kept = {key: value for key, value in asdict(read).items() if value is not None}
    return Blip2Config(**kept)


def _check_values(read: BaseValues, file: Path) -> None:
    """What one field alone does not tell."""
    qformer, vision = read.qformer_config, read.vision_config
    for name, part in (("qformer_config", qformer), ("vision_config", vision)):
        if part.hidden_size % part.num_attention_heads:
            raise CheckpointError(
                f"{file}: {name} has {part.num_attention_heads} attention heads, which do not divide its hidden_size "
                f"of {part.hidden_size}"
            )
        if part.hidden_act not in ACT2FN:
            raise CheckpointError(f"{file}: {name}.hidden_act is {part.hidden_act[:40]!r}, which transformers lacks")
    if vision.image_size < vision.patch_size:
        raise CheckpointError(f"{file}: pictures of {vision.image_size} px are smaller than their patches")
    if qformer.pad_token_id is not None and qformer.pad_token_id >= qformer.vocab_size:
        raise CheckpointError(
            f"{file}: pad_token_id is {qformer.pad_token_id}, beyond the {qformer.vocab_size} words of qformer_config"
        )
    if not qformer.use_qformer_text_input:
        raise CheckpointError(
            f"{file}: qformer_config.use_qformer_text_input is false, so its Q-Former reads no texts; choose a base "
            "for retrieval, such as Salesforce/blip2-itm-vit-g"
        )
