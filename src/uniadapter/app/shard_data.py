"""The command `shard`: pictures or videos with their texts, of any layout, as tar shards; or the index of such."""

from __future__ import annotations

from dataclasses import replace

from uniadapter.app.display import pair_bar, say
from uniadapter.config import SPLITS, ConfigError, RunConfig
from uniadapter.data.layouts.records import ErrorPolicy
from uniadapter.data.shard_writing import ShardSize, load_whole, write_shards
from uniadapter.data.sharded import count_named
from uniadapter.data.shards.index import INDEX
from uniadapter.data.shards.places import join, write_file
from uniadapter.data.training_sets import is_large
from uniadapter.runs.steps import resolve_data


def run_shard(
    config: RunConfig,
    split: str,
    output: str | None,
    size: ShardSize,
    index_only: bool = False,
    overwrite: bool = False,
) -> str:
    """Write the shards of a split, or the index of shards that are there.

    Args:
        config: of a run; nothing of its model is loaded.
        split: "train", "val", "test" or the name of a further test set.
        output: folder or address of the shards; None with `index_only`, whose shards are where they are.
        size: of the shards.
        index_only: write `shards.json` beside shards that others have made.
        overwrite: replace other shards.

    Returns:
        Where the index is.

    Raises:
        ConfigError, DataError: one line that says what to do.
    """
    config = replace(config, data=resolve_data(config.data))
    name = getattr(config.data, split) if split in SPLITS else config.data.extra_tests.get(split)
    if not name:
        raise ConfigError(f"data.{split} is not set: name an annotation file with --data.{split}")
    if index_only:
        return _index(name, config, split)
    if is_large(name):
        raise ConfigError(
            f"data.{split} is {name[:120]}: shards or a stream already; --index_only writes the index of shards"
        )
    if output is None:
        raise ConfigError("where to? add --output FOLDER, or an address such as s3://bucket/folder")
    records = load_whole(name, config.data, config.task, split)
    with pair_bar("writing shards") as progress:
        index = write_shards(records, output, config.task, config.data, size, overwrite, progress)
    say(f"{index.describe()}; train on them with --data.train {output}")
    return join(output, INDEX)


def _index(name: str, config: RunConfig, split: str) -> str:
    policy = ErrorPolicy(config.data.on_error)
    index = replace(count_named(name, config.data, config.task, policy, checksums=True), split=split)
    where = join(index.base, INDEX)
    write_file(where, index.to_json())
    say(f"{index.describe()}; {where}")
    return where
