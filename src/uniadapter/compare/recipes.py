"""What the figures of a run depend on, as a hash: its config, the weights of its base, and the content of its data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from typing import Any

from uniadapter.checkpoints.bases import locate_base
from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.runs.steps import load_split, load_training, test_splits
from uniadapter.training.resume import data_hash, flatten_config

# Settings on which no figure depends; the data are compared by content instead of by name.
IRRELEVANT = {
    "output", "model.base", "data.train", "data.val", "data.test", "data.extra_tests", "data.root", "data.workers",
    "data.timeout", "data.on_error", "data.most_lost_shards", "data.cache",
    "train.log_every", "train.trackers", "train.project", "train.save_every",
    "train.max_minutes",
    "evaluate.batch_size", "evaluate.block", "evaluate.features",
}  # fmt: skip
# Settings that came after the first records; by default everything is as it was before them.
LATER = {
    "data.max_train_visuals",
    "data.samples",
    "data.shuffle_buffer",
    "model.last_layers",
    "model.lora.r",
    "model.lora.alpha",
    "model.lora.dropout",
    "train.fsdp",
    "train.micro_batch",
    "train.skip_bad_steps",
} | {
    f"model.adapter.{name}"
    for name in (
        "activation",
        "frame_temperature",
        "query_residual",
        "self_attention",
        "share",
        "temporal_init",
        "train_norm_cross",
    )
}


class Splits:
    """The splits of a task, read once for all runs of a process."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, RetrievalSplit]] = {}
        self._training: dict[str, TrainingSet] = {}
        self._hashes: dict[int, str] = {}

    def get(self, config: RunConfig, which: str) -> dict[str, RetrievalSplit]:
        """The split "val", or all test sets for "test", by name."""
        plain = _data_of(config, which)
        if plain not in self._read:
            self._read[plain] = test_splits(config) if which == "test" else {which: load_split(config, which)}
        return self._read[plain]

    def training(self, config: RunConfig) -> TrainingSet:
        """The training set."""
        plain = _data_of(config, "train")
        if plain not in self._training:
            self._training[plain] = load_training(config)
        return self._training[plain]

    def hash(self, config: RunConfig, which: str) -> str:
        """A hash of their content."""
        if which == "train":
            return self._hash_of(self.training(config))
        return " ".join(self._hash_of(split, without_groups=True) for split in self.get(config, which).values())

    def _hash_of(self, split: TrainingSet, without_groups: bool = False) -> str:
        if id(split) not in self._hashes:
            # groups order the batches of training, and nothing else
            bare = without_groups and isinstance(split, RetrievalSplit)
            self._hashes[id(split)] = data_hash(replace(split, text_group=[]) if bare else split)  # type: ignore[type-var]
        return self._hashes[id(split)]


def _data_of(config: RunConfig, which: str) -> str:
    return json.dumps([config.task, which, {**config.to_dict()["data"], "blank": False, "together": 1}])


@cache
def _defaults() -> dict[str, Any]:
    return flatten_config(RunConfig())


@cache
def base_hash(base: str) -> str:
    """A hash of the files of a base, weights and tokenizer."""
    digest = hashlib.sha256()
    for file in sorted(locate_base(base).glob("*")):
        if file.suffix in (".safetensors", ".json"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def recipe(config: RunConfig, splits: Splits, splits_read: tuple[str, ...] = ("train", "val")) -> str:
    """A hash of all that the figures of a config depend on.

    Args:
        config: of the run.
        splits: to read the data from.
        splits_read: those that count; without "val" and "test", settings of the evaluation do not count either.
    """
    defaults = _defaults()
    flat = {
        name: value
        for name, value in flatten_config(config).items()
        if name not in IRRELEVANT and (name not in LATER or value != defaults[name])
    }
    if splits_read == ("train",):
        flat = {
            name: value
            for name, value in flat.items()
            if not name.startswith("evaluate.") or name == "evaluate.precision"  # which may round the frozen weights
        }
    parts = [flat, base_hash(config.model.base), *(splits.hash(config, which) for which in splits_read)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
