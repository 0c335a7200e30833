"""UniAdapter inside transformers' BLIP: adapt a pre-trained vision-language model with 1-2% of its parameters."""

from uniadapter.adapters import (
    active_adapter,
    adapter_names,
    adapter_set,
    add_adapter,
    count_parameters,
    disable_adapter,
    remove_adapter,
    select_adapter,
)
from uniadapter.backbone import Texts, Visuals, encode_text, encode_visual, fuse, match
from uniadapter.checkpoint import base_hash, load_adapter, save_adapter
from uniadapter.config import AdapterConfig, RunConfig
from uniadapter.loading import load_model, load_tokenizer
from uniadapter.precision import round_frozen
from uniadapter.predict import ask, caption, image_features, pair_scores, text_features
from uniadapter.version import __version__

__all__ = [
    "AdapterConfig",
    "RunConfig",
    "Texts",
    "Visuals",
    "__version__",
    "active_adapter",
    "adapter_names",
    "adapter_set",
    "add_adapter",
    "ask",
    "base_hash",
    "caption",
    "count_parameters",
    "disable_adapter",
    "encode_text",
    "encode_visual",
    "fuse",
    "image_features",
    "load_adapter",
    "load_model",
    "load_tokenizer",
    "match",
    "pair_scores",
    "remove_adapter",
    "round_frozen",
    "save_adapter",
    "select_adapter",
    "text_features",
]
