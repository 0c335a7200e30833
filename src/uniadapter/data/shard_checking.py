"""What a set of shards holds: every record is looked at, and every shard compared with its index."""

from __future__ import annotations

from uniadapter.config import DataConfig
from uniadapter.data.checking import SplitFacts, spread
from uniadapter.data.shard_counting import CollectingPolicy, read_index
from uniadapter.data.sharded import count_named
from uniadapter.data.shards.index import INDEX, ShardIndex
from uniadapter.data.shards.names import find_shards


def check_shards(name: str, config: DataConfig, task: str, split: str = "train") -> SplitFacts:
    """Read all shards of a set: their texts are looked at, pictures are not decoded.

    Args:
        name: of the set, as `data.train` has it.
        config: of the data.
        task: what will be trained on it.
        split: its name.

    Raises:
        DataError: there is no shard, or nothing usable in any; or the index is broken.
    """
    policy = CollectingPolicy()
    base, names = find_shards(name)
    stated = read_index(base)
    if stated is not None and names is not None:
        stated = stated.chosen(names)
    listed = None if stated is None else [one.name for one in stated.shards]
    found = count_named(name, config, task, policy, checksums=True, listed=listed)
    facts = SplitFacts(split, name, found.noun, found.holds, int(found.first_records[-1]), int(found.first_samples[-1]))
    for error in policy.kept:
        facts.damage.setdefault(error.kind, []).append(str(error))
    facts.numbers["shards"] = len(found.shards)
    facts.numbers["records of a shard"] = spread([shard.records for shard in found.shards])
    facts.numbers[f"{found.holds} of a record"] = spread(
        [int(one) for shard in found.shards for one in ({1} if shard.texts is None else set(shard.texts.tolist()))]
    )
    if stated is None:
        facts.numbers[f"{INDEX}, which saves counting them"] = 0
    else:
        _compare(facts, stated, found)
    return facts


def _compare(facts: SplitFacts, stated: ShardIndex, found: ShardIndex) -> None:
    """Name the shards that are not what the index says."""
    there = {shard.name: shard for shard in found.shards}
    for shard in stated.shards:
        known = there.get(shard.name)
        sums = known is None or not shard.sha256 or shard.sha256 == known.sha256
        if known is not None and (not sums or (known.records, known.samples) != (shard.records, shard.samples)):
            facts.damage.setdefault("shard unlike its index", []).append(shard.name)
