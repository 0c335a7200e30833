"""`config.json` of a BLIP-2, checked value by value before a model is made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from transformers import Blip2Config

from uniadapter.checkpoints.base_values import (
    IGNORING,
    Layers,
    Positive,
    Share,
    Size,
    Token,
    Vocabulary,
    check_sizes,
    read_values,
)
from uniadapter.checkpoints.bases import CONFIG
from uniadapter.errors import CheckpointError
from uniadapter.files.schema import read_json, validated


@dataclass
class QFormerValues:
    """`qformer_config` of a BLIP-2's `config.json`; the defaults are transformers'."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    vocab_size: Vocabulary = 30522
    hidden_size: Size = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: Share = 0.1
    attention_probs_dropout_prob: Share = 0.1
    max_position_embeddings: Size = 512
    initializer_range: Positive = 0.02
    layer_norm_eps: Positive = 1e-12
    pad_token_id: Token | None = 0
    cross_attention_frequency: Layers = 2
    use_qformer_text_input: bool = False


@dataclass
class VisionValues:
    """`vision_config` of a BLIP-2's `config.json`."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    hidden_size: Size = 1408
    intermediate_size: Size = 6144
    num_hidden_layers: Layers = 39
    num_attention_heads: Size = 16
    image_size: Size = 224
    patch_size: Size = 14
    hidden_act: str = "gelu"
    layer_norm_eps: Positive = 1e-6
    attention_dropout: Share = 0.0
    initializer_range: Positive = 1e-10
    qkv_bias: bool = True


@dataclass
class BaseValues:
    """`config.json` of a BLIP-2, but for its language model, which retrieval has not."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    vision_config: VisionValues = field(default_factory=VisionValues)
    qformer_config: QFormerValues = field(default_factory=QFormerValues)
    num_query_tokens: Annotated[int, Field(ge=1, le=4096)] = 32
    image_text_hidden_size: Size = 256
    image_token_index: Token | None = None
    initializer_factor: Positive = 1.0
    initializer_range: Positive = 0.02
    uniadapter_method: str | None = None  # `runs.folders.METHOD_KEY`


def read_base_config(folder: Path) -> Blip2Config:
    """The config of a folder of transformers files.

    Raises:
        CheckpointError: it is missing, broken, or holds values that no BLIP-2 for retrieval can have; names the file.
    """
    file = folder / CONFIG
    read = read_values(file, lambda: validated(read_json(file), BaseValues, str(file)))
    _check_values(read, file)
    kept = {key: value for key, value in asdict(read).items() if value is not None}
    return Blip2Config(**kept)


def _check_values(read: BaseValues, file: Path) -> None:
    """What one field alone does not tell."""
    qformer = read.qformer_config
    check_sizes(file, read.vision_config, {"qformer_config": qformer, "vision_config": read.vision_config})
    if qformer.pad_token_id is not None and qformer.pad_token_id >= qformer.vocab_size:
        raise CheckpointError(
            f"{file}: pad_token_id is {qformer.pad_token_id}, beyond the {qformer.vocab_size} words of qformer_config"
        )
    if not qformer.use_qformer_text_input:
        raise CheckpointError(
            f"{file}: qformer_config.use_qformer_text_input is false, so its Q-Former reads no texts; choose a base "
            "for retrieval, such as Salesforce/blip2-itm-vit-g"
        )
