"""The command `check-data`: what a local copy of a config's data holds, before anyone trains on it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from uniadapter.app.display import console, pair_bar, say
from uniadapter.config import SPLITS, RunConfig
from uniadapter.data.checking import SplitFacts, check_split_content
from uniadapter.data.look_alikes import look_alikes
from uniadapter.data.media.paths import printable_path
from uniadapter.data.published_counts import published
from uniadapter.data.shard_checking import check_shards
from uniadapter.data.shards.names import HUB
from uniadapter.data.training_sets import is_large
from uniadapter.errors import DataError
from uniadapter.files.writing import write_text
from uniadapter.runs.steps import load_split, resolve_data

_LISTED = 5  # files of each kind of damage that are printed; the JSON has all


def run_check(config: RunConfig, output: Path | None = None) -> bool:
    """Check all splits of a config, print what was found, and write it as JSON.

    Args:
        config: of a run; nothing of its model is loaded.
        output: of the JSON; None writes none.

    Returns:
        Whether nothing is missing, damaged, of another size than published, or in two splits.

    Raises:
        ConfigError: an embedded set that the config names cannot be made.
    """
    data = replace(resolve_data(config.data), on_error="skip")
    config = replace(config, data=data)
    files = {name: getattr(data, name) for name in SPLITS if getattr(data, name)} | data.extra_tests
    found, fine, broken = [], True, {}
    for name, file in files.items():
        try:
            if name == "train" and file.startswith(HUB):
                say(f"train: {file[:120]} is a stream, which is read while it is trained on and not before")
                continue
            if name == "train" and is_large(file):
                found.append(check_shards(file, data, config.task))
                continue
            split = load_split(config, name)
        except DataError as error:
            broken[name] = str(error)
            continue
        frames = data.evaluation_frames if name != "train" else data.frames
        with pair_bar(f"{name}: looking at {split.noun}") as progress:
            found.append(check_split_content(split, file, published(file), frames, data.workers, progress))
    overlaps = {f"{a.name} and {b.name}": _shared(a, b) for a, b in combinations(found, 2)}
    for facts in found:
        fine = _say(facts) and fine
    for name, why in broken.items():
        say(f"{name}: cannot be read: {why}")
    for names, pairs in overlaps.items():
        if pairs:
            some = "; ".join(" = ".join(map(_short, pair)) for pair in pairs[:_LISTED])
            say(f"{names} share {len(pairs)} look-alikes: {some}")
    if output is not None:
        values: dict[str, Any] = {
            "splits": [facts.to_dict() for facts in found], "unreadable_splits": broken, "look_alikes": overlaps,
        }  # fmt: skip
        write_text(output, json.dumps(values, indent=2) + "\n")
        say(str(output))
    fine = fine and not broken and not any(overlaps.values())
    say("nothing wrong was found" if fine else "something is wrong with these data, see above")
    return fine


def _shared(one: SplitFacts, other: SplitFacts) -> list[tuple[str, str]]:
    """Names of visuals of two splits that look the same, or are the same file."""
    return [(one.names[a], other.names[b]) for a, b in look_alikes(one.looks, other.looks)]


def _short(name: str) -> str:
    return printable_path(Path(name).name)


def _say(facts: SplitFacts) -> bool:
    """Print what was found in a split; whether nothing is wrong with it."""
    size = f"{facts.visuals:,} {facts.noun}, {facts.texts:,} {facts.text_noun}"
    told = "as published" if facts.published and not facts.differs else facts.differs or "no published size is known"
    say(f"{facts.name}: {size}; {told}")
    table = Table(box=box.SIMPLE, show_header=False)
    for what, value in facts.numbers.items():
        shown = value if isinstance(value, int) else "{least:g} to {most:g}, median {median:g}".format(**value)
        table.add_row(what, str(shown))
    for kind, names in facts.damage.items():
        more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
        table.add_row(f"{len(names):,} {kind}", ", ".join(map(_short, names[:_LISTED])) + more)
    console.print(table)
    return not facts.damage and not facts.differs
