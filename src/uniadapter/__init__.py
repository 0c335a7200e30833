"""UniAdapter for models of transformers: adapt a pre-trained vision-language model with 1-2% of its parameters.

Public names are imported lazily, at their first use, so that neither `import uniadapter` nor `uniadapter --help` waits
for torch. Each is listed twice below: for type checkers and editors, and in `_MODULES`, which is used at run time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniadapter.app.train import Trained, train
    from uniadapter.checkpoints.adapter_folder import save_adapter
    from uniadapter.checkpoints.adapters import add_adapter, load_adapter
    from uniadapter.checkpoints.loading import load_model, load_tokenizer
    from uniadapter.checkpoints.pretrained import Pretrained, from_pretrained
    from uniadapter.config import AdapterConfig, RunConfig
    from uniadapter.inference.attention import attention_maps
    from uniadapter.inference.features import image_features, pair_scores, text_features
    from uniadapter.inference.predict import ask, ask_each, caption
    from uniadapter.model.attention_maps import AttentionMap
    from uniadapter.model.counting import count_parameters, print_trainable_parameters
    from uniadapter.model.encoding import encode_text, encode_visual, fuse, fused_ids, match
    from uniadapter.model.features import Texts, Visuals
    from uniadapter.model.identity import base_hash
    from uniadapter.model.precision import round_frozen
    from uniadapter.model.sets import (
        active_adapter,
        adapter_names,
        adapter_set,
        disable_adapter,
        remove_adapter,
        select_adapter,
    )
    from uniadapter.model.settings import InferenceSettings
    from uniadapter.objectives.functions import (
        FeatureQueue,
        MatchingPairs,
        answer_loss,
        caption_loss,
        contrastive_loss,
        hard_negative_pairs,
        matching_loss,
    )
    from uniadapter.search.index import Index
    from uniadapter.search.ranking import Filters, Match
    from uniadapter.version import __version__

_MODULES = {
    "model.counting": ("count_parameters", "print_trainable_parameters"),
    "model.sets": (
        "active_adapter", "adapter_names", "adapter_set", "disable_adapter", "remove_adapter", "select_adapter",
    ),
    "model.encoding": ("encode_text", "encode_visual", "fuse", "fused_ids", "match"),
    "model.features": ("Texts", "Visuals"),
    "checkpoints.adapter_folder": ("save_adapter",),
    "checkpoints.adapters": ("add_adapter", "load_adapter"),
    "config": ("AdapterConfig", "RunConfig"),
    "model.identity": ("base_hash",),
    "app.train": ("Trained", "train"),
    "checkpoints.loading": ("load_model", "load_tokenizer"),
    "objectives.functions": (
        "FeatureQueue", "MatchingPairs", "answer_loss", "caption_loss", "contrastive_loss", "hard_negative_pairs",
        "matching_loss",
    ),
    "model.precision": ("round_frozen",),
    "inference.attention": ("attention_maps",),
    "model.attention_maps": ("AttentionMap",),
    "inference.features": ("image_features", "pair_scores", "text_features"),
    "inference.predict": ("ask", "ask_each", "caption"),
    "checkpoints.pretrained": ("Pretrained", "from_pretrained"),
    "model.settings": ("InferenceSettings",),
    "search.index": ("Index",),
    "search.ranking": ("Filters", "Match"),
    "version": ("__version__",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AdapterConfig",
    "AttentionMap",
    "FeatureQueue",
    "Filters",
    "Index",
    "InferenceSettings",
    "Match",
    "MatchingPairs",
    "Pretrained",
    "RunConfig",
    "Texts",
    "Trained",
    "Visuals",
    "__version__",
    "active_adapter",
    "adapter_names",
    "adapter_set",
    "add_adapter",
    "answer_loss",
    "ask",
    "ask_each",
    "attention_maps",
    "base_hash",
    "caption",
    "caption_loss",
    "contrastive_loss",
    "count_parameters",
    "disable_adapter",
    "encode_text",
    "encode_visual",
    "from_pretrained",
    "fuse",
    "fused_ids",
    "hard_negative_pairs",
    "image_features",
    "load_adapter",
    "load_model",
    "load_tokenizer",
    "match",
    "matching_loss",
    "pair_scores",
    "print_trainable_parameters",
    "remove_adapter",
    "round_frozen",
    "save_adapter",
    "select_adapter",
    "text_features",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
