"""`config.json` of a BLIP, validated before a model is built from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict
from transformers import BlipConfig

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
from uniadapter.files.schema import SchemaError, read_json, validated
from uniadapter.model.backbone import CLIP_MEAN, CLIP_STD


@dataclass
class TextValues:
    """`text_config` of a BLIP's `config.json`; the defaults are transformers'."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    vocab_size: Vocabulary = 30524
    hidden_size: Size = 768
    encoder_hidden_size: Size = 768
    intermediate_size: Size = 3072
    projection_dim: Size = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = 8
    max_position_embeddings: Size = 512
    hidden_act: str = "gelu"
    layer_norm_eps: Positive = 1e-12
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    initializer_range: Positive = 0.02
    bos_token_id: Token = 30522
    eos_token_id: Token | list[Token] | None = 2
    pad_token_id: Token = 0
    sep_token_id: Token = 102
    enc_token_id: Token | None = None
    is_decoder: bool = True
    use_cache: bool = True
    tie_word_embeddings: bool = True
    label_smoothing: Share = 0.0


@dataclass
class VisionValues:
    """`vision_config` of a BLIP's `config.json`."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    hidden_size: Size = 768
    intermediate_size: Size = 3072
    projection_dim: Size = 512
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = 12
    image_size: Size = 384
    patch_size: Size = 16
    hidden_act: str = "gelu"
    layer_norm_eps: Positive = 1e-5
    attention_dropout: Share = 0.0
    initializer_range: Positive = 1e-10


@dataclass
class BaseValues:
    """`config.json` of a BLIP: the keys that weights and outputs depend on; others are ignored."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    text_config: TextValues = field(default_factory=TextValues)
    vision_config: VisionValues = field(default_factory=VisionValues)
    projection_dim: Size = 512
    logit_scale_init_value: float = 2.6592
    image_text_hidden_size: Size = 256
    label_smoothing: Share = 0.0
    initializer_factor: Positive = 1.0
    initializer_range: Positive = 0.02
    uniadapter_method: str | None = None  # `runs.folders.METHOD_KEY`


def read_base_config(folder: Path) -> BlipConfig:
    """The config of a folder of transformers files.

    Raises:
        CheckpointError: it is missing, broken, another model's, or holds values that no BLIP can have; names the file.
    """
    file = folder / CONFIG
    read = read_values(file, lambda: _read(file))
    _check_values(read, file)
    text = {key: value for key, value in asdict(read.text_config).items() if value is not None}
    whole = {key: value for key, value in asdict(read).items() if value is not None}
    return BlipConfig(**{**whole, "text_config": text})


def _read(file: Path) -> BaseValues:
    values = read_json(file)
    kind = values.get("model_type") if isinstance(values, dict) else None
    if isinstance(values, dict) and kind != "blip":
        raise CheckpointError(f"{file}: its model_type is {str(kind)[:40]!r}, not 'blip'; choose a BLIP as base")
    return validated(values, BaseValues, str(file))


def _check_values(read: BaseValues, file: Path) -> None:
    """Check what depends on several fields."""
    text = read.text_config
    check_sizes(file, read.vision_config, {"text_config": text, "vision_config": read.vision_config})
    enc = text.bos_token_id + 1 if text.enc_token_id is None else text.enc_token_id
    tokens = {"bos_token_id": text.bos_token_id, "[ENC]": enc, "pad_token_id": text.pad_token_id,
              "sep_token_id": text.sep_token_id}  # fmt: skip
    for name, token in tokens.items():
        if token >= text.vocab_size:
            raise CheckpointError(f"{file}: {name} is {token}, beyond the {text.vocab_size} words of text_config")


def other_preprocessing(folder: Path) -> str:
    """A warning if a base's `preprocessor_config.json` differs from this package's preprocessing; empty if not."""
    file = folder / "preprocessor_config.json"
    try:
        values = read_json(file) if file.is_file() else {}
    except (SchemaError, OSError) as error:
        return str(error)
    if not isinstance(values, dict):
        return f"{file}: its top level has no keys"
    ours = {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD), "resample": 3, "do_normalize": True}
    other = [key for key, value in ours.items() if not _same(values.get(key, value), value)]
    return f"{file}: its {', '.join(other)} differ from BLIP's, which are used here" if other else ""


def _same(found: object, value: object) -> bool:
    if isinstance(found, list) and isinstance(value, list) and all(isinstance(one, (int, float)) for one in found):
        return len(found) == len(value) and all(abs(a - b) < 1e-4 for a, b in zip(found, value, strict=True))
    return found == value
