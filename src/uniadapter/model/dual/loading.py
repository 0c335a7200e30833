"""How bases of two towers are read: their config checked value by value, and how they want to see pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from uniadapter.checkpoints.base_values import (
    IGNORING,
    Layers,
    Positive,
    Share,
    Size,
    Vocabulary,
    check_sizes,
    read_values,
)
from uniadapter.checkpoints.loader import BaseLoader
from uniadapter.errors import CheckpointError
from uniadapter.files.schema import read_json, validated

_Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


@dataclass
class TowerValues:
    """What both towers' configs must say."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    hidden_act: str
    layer_norm_eps: Positive
    attention_dropout: Share


@dataclass
class VisionValues(TowerValues):
    """What the visual tower's config must say; pictures and patches are square."""

    image_size: Size
    patch_size: Size
    num_channels: Literal[3]


@dataclass
class TextValues(TowerValues):
    """What the textual tower's config must say."""

    vocab_size: Vocabulary
    max_position_embeddings: Size
    eos_token_id: int


@dataclass
class PictureValues:
    """What a preprocessor's file says of pixels; what it lacks is as the family has it."""

    __pydantic_config__: ClassVar[ConfigDict] = IGNORING
    image_mean: _Channels | None = None
    image_std: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    resample: Literal[0, 1, 2, 3, 4, 5] | None = None
    do_center_crop: bool | None = None


class DualLoader(BaseLoader):
    """How bases of two towers are read."""

    def read_config(self, folder: Path) -> PreTrainedConfig:
        """The config, checked; pixel statistics and filter of the preprocessor's file are put into it."""
        config = super().read_config(folder)
        shown = _pictures(folder)
        if shown.image_mean is not None:
            config.image_mean = shown.image_mean
        if shown.image_std is not None:
            config.image_std = shown.image_std
        if shown.resample is not None:
            config.image_resampling = _RESAMPLING[shown.resample]
        if shown.do_center_crop is not None:
            config.image_crop = shown.do_center_crop
        return config

    def check_config(self, config: PreTrainedConfig, file: Path) -> None:
        """Refuse values that no model of the family can have; names the file."""
        vision, text = read_values(file, lambda: _towers(config, file))
        check_sizes(file, vision, {"vision_config": vision, "text_config": text})

    def tokenizer(self, path: Path, base: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a folder, checked against the model and made to read as the model was trained."""
        tokenizer = super().tokenizer(path, base)
        try:
            fault = self.unlike(tokenizer, self.read_config(path))
        except CheckpointError:
            raise
        except Exception as error:  # of a tokenizer that cannot even tokenise
            raise CheckpointError(f"{path}: its tokenizer fails on a text ({type(error).__name__}: {error})") from error
        if fault:
            raise CheckpointError(f"{path}: its tokenizer {fault}; take the one that the base came with")
        return tokenizer

    def unlike(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> str:
        """What makes a tokenizer another model's; empty where nothing does."""
        if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
            return "has no padding token or no end token"
        if tokenizer("a picture of the").input_ids[-1] != tokenizer.eos_token_id:
            return "puts no end token behind a text"
        return ""


def _pictures(folder: Path) -> PictureValues:
    """What the folder's preprocessor says."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():  # newer folders have it within the processor's
        file = folder / "processor_config.json"
    return read_values(file, lambda: validated(_image_processor(file), PictureValues, str(file)))


def _image_processor(file: Path) -> object:
    values = read_json(file) if file.is_file() else {}
    within = file.name == "processor_config.json" and isinstance(values, dict)
    return values.get("image_processor", {}) if within else values


def _towers(config: PreTrainedConfig, file: Path) -> tuple[VisionValues, TextValues]:
    vision, text = config.vision_config.to_dict(), config.text_config.to_dict()
    return (
        validated(vision, VisionValues, f"{file}: vision_config"),
        validated(text, TextValues, f"{file}: text_config"),
    )
