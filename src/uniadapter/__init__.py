"""UniAdapter inside transformers' BLIP: adapt a pre-trained vision-language model with 1-2% of its parameters.

Names are imported when they are first asked for, so that neither `import uniadapter` nor `uniadapter --help` waits for
torch. A public name stands below twice: for type checkers and editors, and in `_HOMES`, where it is found at run time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniadapter.app.predict import ask, caption, image_features, pair_scores, text_features
    from uniadapter.app.train import Trained, train
    from uniadapter.checkpoints.adapter_folder import save_adapter
    from uniadapter.checkpoints.adapters import add_adapter, load_adapter
    from uniadapter.checkpoints.loading import load_model, load_tokenizer
    from uniadapter.checkpoints.pretrained import Pretrained, from_pretrained
    from uniadapter.config import AdapterConfig, RunConfig
    from uniadapter.model.encoding import encode_text, encode_visual, fuse, fused_ids, match
    from uniadapter.model.features import Texts, Visuals
    from uniadapter.model.identity import base_hash
    from uniadapter.model.precision import round_frozen
    from uniadapter.model.sets import (
        active_adapter,
        adapter_names,
        adapter_set,
        count_parameters,
        disable_adapter,
        print_trainable_parameters,
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
    from uniadapter.version import __version__

_HOMES = {
    "model.sets": (
        "active_adapter", "adapter_names", "adapter_set", "count_parameters", "disable_adapter",
        "print_trainable_parameters", "remove_adapter", "select_adapter",
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
    "app.predict": ("ask", "caption", "image_features", "pair_scores", "text_features"),
    "checkpoints.pretrained": ("Pretrained", "from_pretrained"),
    "model.settings": ("InferenceSettings",),
    "version": ("__version__",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdapterConfig",
    "FeatureQueue",
    "InferenceSettings",
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
    """A public name, from the module that has it."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
