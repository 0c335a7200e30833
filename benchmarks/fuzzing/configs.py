"""Mutated configs: YAML files, and values of the command line."""

from __future__ import annotations

import random
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from fuzzing.running import CANARY, Case, Draw
from fuzzing.values import ALIASES, DEEP, LEVELS, LONG, REPLACEMENTS, brief, damaged_text, mutated
from fuzzing.world import World, config
from uniadapter.config import RunConfig

VALUES = (
    "null", "-1", "0", "1", "2", "1.5", "-0.5", "1e30", "1e-30", "nan", "inf", "-inf", "1000000000", "1000000000000",
    str(2**70), "x", "", " ", "[]", "{}", "[1]", "[1, 2]", "{a: 1}", "true", "false", "x" * 5000, "🙂", "\udcff", "{",
    "!!x", "embedded:x/y", "~", "0x10", "1_000", "[" * 2000, "@x", "--x", "\n",
)  # fmt: skip
UNTOUCHED = ("output",)  # a run folder may be anywhere


def keys() -> list[str]:
    """Every setting of a run, dotted."""
    return [key for key in _below(RunConfig(), "") if key not in UNTOUCHED]


def _below(values: Any, prefix: str) -> list[str]:
    found = []
    for one in fields(values):
        inner = getattr(values, one.name)
        found += [f"{prefix}{one.name}"] if not is_dataclass(inner) else _below(inner, f"{prefix}{one.name}.")
    return found


def _sound(world: World, rng: random.Random, folder: Path) -> dict[str, Any]:
    task = rng.choice(("retrieval", "retrieval", "vqa"))
    file = str(world.folder / {"retrieval": "pairs.json", "vqa": "vqa.json"}[task])
    # Measuring after training costs a second, and so is left to a few.
    return config(world, task, str(folder / "run"), train=file, test=file)


def _arguments(rng: random.Random, run: Path) -> list[str]:
    """Train to the end, or, since that takes longer, more often measure."""
    return [rng.choice(("train", "evaluate", "evaluate")), str(run)]


def command_line(world: World, rng: Draw, folder: Path) -> Case:
    """A setting given another value on the command line; the first inputs are null for each setting."""
    run = folder / "sound.yaml"
    run.write_text(yaml.safe_dump(_sound(world, rng, folder)))
    first = rng.number < len(keys())
    key, value = (keys()[rng.number], "null") if first else (rng.choice(keys()), rng.choice(VALUES))
    if (key, value) == ("train.compile_vision", "true"):
        value = "maybe"  # else a C++ compiler works for half a minute
    arguments = [*_arguments(rng, run), f"--{key}={value}"]
    names = (*_names(key), *([value[:20]] if value.strip() else []))
    return Case(f"{arguments[0]} --{key}={brief(value)}", arguments, names, draws=True)


def yaml_file(world: World, rng: Draw, folder: Path) -> Case:
    """A YAML file with a value changed, or broken as text; the first inputs are null for each setting."""
    run = folder / "broken.yaml"
    values = _sound(world, rng, folder)
    first = rng.number < len(keys())
    form = "key" if first else rng.choice(("key", "key", "any", "text", "text", "raw"))
    names: tuple[str, ...] = ("broken.yaml",)
    if form == "key":
        key, value = (keys()[rng.number], None) if first else (rng.choice(keys()), rng.choice(REPLACEMENTS))
        _set(values, key, value)
        text, what, names = _dumped(values), f"{key}={brief(value)}", (*names, *_names(key))
    elif form == "any":
        output = values.pop("output")
        content, what = mutated(values, rng)
        if isinstance(content, dict):
            content["output"] = output
        text = _dumped(content)
    elif form == "text":
        text, what = damaged_text(_dumped(values), rng)
    else:
        raw = {
            "aliases": ALIASES, "deep": "[" * LEVELS, "braces": "{" * LEVELS, "self": "a: &a [*a]",
            "code": f"a: !!python/object/apply:os.mkdir ['{folder / CANARY}']", "date": "train: 2001-01-01",
            "long": f"train: {LONG}", "lists": "- task\n- model", "documents": "task: vqa\n---\ntask: vqa\n",
            "code2": f"!!python/object/new:os.mkdir ['{folder / CANARY}']", "int": "1" * 10_000, "key": "? [a]\n: b\n",
            "merge": "<<: 1", "tag": "!!binary x", "tabs": "a:\n\tb: 1", "set": "!!set {a, b}", "number keys": "1: 2",
        }  # fmt: skip
        what = rng.choice(list(raw))
        text = raw[what].encode()
    # Whatever is changed, nothing is written elsewhere on purpose.
    run.write_bytes(text)
    arguments = [*_arguments(rng, run), "--output", str(folder / "run")]
    # A path in it that leads nowhere is named as well as the file itself would be.
    return Case(f"{arguments[0]} {form}: {what}", arguments, (*names, "/world/"), draws=True)


def _names(key: str) -> tuple[str, ...]:
    parts = key.split(".")
    return (key, parts[-1], ".".join(parts[-2:]))


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for name in above:
        values = values.setdefault(name, {})
    values[last] = value


def _dumped(values: Any) -> bytes:
    text = yaml.safe_dump(values)
    return text.replace(f"'{DEEP}'", "[" * LEVELS + "]" * LEVELS).encode("utf-8", "surrogatepass")
