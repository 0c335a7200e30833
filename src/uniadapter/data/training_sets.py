"""Training data of every kind: what is read whole, and shards and streams, of which only parts are held."""

from __future__ import annotations

import os
from typing import Any

from uniadapter.config import DataConfig
from uniadapter.data.in_memory import Data, make_split
from uniadapter.data.large_splits import LargeSplit
from uniadapter.data.sharded import load_shards
from uniadapter.data.shards.names import HUB, names_shards
from uniadapter.data.splits import TrainingSet
from uniadapter.data.streamed import StreamedSplit, open_stream


def is_large(name: str) -> bool:
    """Whether a value of `data.train` names shards or a stream."""
    return name.startswith(HUB) or names_shards(name)


def open_large(name: str, config: DataConfig, task: str) -> LargeSplit:
    """The shards or the stream of a name; see `load_shards` and `open_stream`."""
    return open_stream(name, config, task) if name.startswith(HUB) else load_shards(name, config, task)


def make_training_set(data: Data | Any, task: str, config: DataConfig) -> TrainingSet:
    """Training data from what `make_split` takes, from shards, or from a stream.

    Args:
        data: as for `make_split`; names of shards (`shards/train-{000..099}.tar`, a folder of them, an address),
            `hf://NAME`, or an `IterableDataset` of Hugging Face's `datasets`.
        task: "retrieval", "vqa" or "caption".
        config: of the data.

    Raises:
        ConfigError, DataError, TypeError: as `make_split`, `load_shards` and `open_stream`.
    """
    if isinstance(data, LargeSplit):
        return data
    if isinstance(data, (str, os.PathLike)):
        name = os.path.expanduser(os.fspath(data))
        return open_large(name, config, task) if is_large(name) else make_split(data, task, config)
    rows = data.get("train", data) if isinstance(data, dict) else data
    if _is_stream(rows):
        return StreamedSplit("train", "the stream", rows, task, config)
    return make_split(data, task, config)


def _is_stream(rows: object) -> bool:
    """Whether it is an `IterableDataset` of Hugging Face, whose package need not be there."""
    return hasattr(rows, "__iter__") and hasattr(rows, "num_shards") and not hasattr(rows, "__len__")
