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
from uniadapter.checkpoints.compatibility import missing_files
from uniadapter.config import SPLITS, DataConfig, RunConfig
from uniadapter.data.checking import SplitFacts, check_split_content
from uniadapter.data.look_alikes import look_alikes
from uniadapter.data.media.paths import printable_path
from uniadapter.data.published_counts import OF_OURS, published
from uniadapter.data.questions import QuestionSplit, frequent_answers, read_answer_list
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
    ours = {name for name, file in _files(config.data).items() if file.startswith("embedded:")}
    data = replace(resolve_data(config.data), on_error="skip")
    config = replace(config, data=data)
    found: list[SplitFacts] = []
    broken = missing_files(config)
    answers = _answers_of_file(config, broken)
    for name, file in _files(data).items():
        try:
            if name == "train" and file.startswith(HUB):
                say(f"train: {file[:120]} is a stream, which is read while it is trained on and not before")
            elif name == "train" and is_large(file):
                found.append(check_shards(file, data, config.task))
            else:
                split = load_split(config, name)
                if name == "train" and isinstance(split, QuestionSplit) and not data.answer_list:
                    answers = frozenset(frequent_answers(split, data.answer_count))
                size = OF_OURS if name in ours else published(file)
                with pair_bar(f"{name}: looking at {split.noun}") as bar:
                    found.append(check_split_content(split, file, size, data, bar, answers))
        except DataError as error:
            broken[name] = str(error)
    fine = _say_all(found, broken, overlaps := _overlaps(found))
    if output is not None:
        values: dict[str, Any] = {
            "splits": [facts.to_dict() for facts in found], "unreadable_splits": broken, "look_alikes": overlaps,
        }  # fmt: skip
        write_text(output, json.dumps(values, indent=2) + "\n")
        say(str(output))
    say("nothing wrong was found" if fine else "something is wrong with these data, see above")
    return fine


def _files(data: DataConfig) -> dict[str, str]:
    """The annotations of each split, by its name."""
    return {name: getattr(data, name) for name in SPLITS if getattr(data, name)} | data.extra_tests


def _answers_of_file(config: RunConfig, broken: dict[str, str]) -> frozenset[str] | None:
    """The file's list of answers to choose from; None without one, what is wrong with it in `broken`."""
    file = config.data.answer_list
    if config.task != "vqa" or not file or "data.answer_list" in broken:
        return None
    try:
        return frozenset(read_answer_list(file))
    except DataError as error:
        broken["data.answer_list"] = str(error)
        return None


def _overlaps(found: list[SplitFacts]) -> dict[str, list[tuple[str, str]]]:
    """Of each two splits the names of visuals that look the same, or are the same file."""
    return {
        f"{a.name} and {b.name}": [(a.names[one], b.names[other]) for one, other in look_alikes(a.looks, b.looks)]
        for a, b in combinations(found, 2)
    }


def _say_all(found: list[SplitFacts], broken: dict[str, str], overlaps: dict[str, list[tuple[str, str]]]) -> bool:
    """Print what was found; whether nothing is wrong."""
    fine = all([_say(facts) for facts in found])
    for name, why in broken.items():
        say(why if name.startswith("data.") else f"{name}: cannot be read: {why}")
    for names, pairs in overlaps.items():
        if pairs:
            some = "; ".join(" = ".join(map(_short, pair)) for pair in pairs[:_LISTED])
            say(f"{names} share {len(pairs)} look-alikes: {some}")
    return fine and not broken and not any(overlaps.values())


def _short(name: str) -> str:
    """A file, or where an error is and what it says, without folders."""
    file, colon, reason = name.partition(": ")
    return printable_path(f"{Path(file).name}{colon}{reason}")


def _say(facts: SplitFacts) -> bool:
    """Print what was found in a split; whether nothing is wrong with it."""
    size = f"{facts.visuals:,} {facts.noun}, {facts.texts:,} {facts.text_noun}"
    told = facts.differs or "as published"
    if facts.published is OF_OURS:
        told = "comes with uniadapter"
    elif facts.published is None:
        told = "no published size is known"
    say(f"{facts.name}: {size}; {told}")
    table = Table(box=box.SIMPLE, show_header=False)
    for what, value in facts.numbers.items():
        shown = value if isinstance(value, int) else "{least:g} to {most:g}, median {median:g}".format(**value)
        table.add_row(what, str(shown))
    for kind, names in facts.damage.items():
        more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
        between = "\n" if any(": " in name for name in names[:_LISTED]) else ", "  # errors are sentences
        table.add_row(f"{len(names):,} {kind}", between.join(map(_short, names[:_LISTED])) + more)
    console.print(table)
    return not facts.damage and not facts.differs
