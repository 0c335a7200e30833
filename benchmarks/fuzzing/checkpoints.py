"""Mutated adapter folders and `.pth` files."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from fuzzing.running import Case
from fuzzing.tensors import State, mutated_state, odd_tensor, other_forms, with_code
from fuzzing.values import as_json, damaged_text, flipped, mutated
from fuzzing.world import World, config

CONFIG, WEIGHTS = "uniadapter_config.json", "adapter_model.safetensors"
HEADS = ["--vision_heads", "4", "--text_heads", "4"]


def adapter(world: World, rng: random.Random, folder: Path) -> Case:
    """An adapter folder with a mutated config, mutated weights, or damaged files, asked or measured."""
    task = rng.choice(("retrieval", "vqa", "caption"))
    broken = folder / "broken"
    shutil.copytree(world.adapter(task), broken)
    settings, weights = broken / CONFIG, broken / WEIGHTS
    form = rng.choice(("values", "values", "values", "text", "tensors", "tensors", "bytes", "header", "files"))
    if form == "values":
        content, what = mutated(json.loads(settings.read_text()), rng)
        settings.write_bytes(as_json(content))
    elif form == "text":
        text, what = damaged_text(settings.read_bytes(), rng)
        settings.write_bytes(text)
    elif form == "tensors":
        what = _other_tensors(weights, rng)
    elif form == "bytes":
        content = weights.read_bytes()
        cut = rng.random() < 0.4
        weights.write_bytes(content[: rng.randrange(len(content))] if cut else flipped(content, rng))
        what = "weights cut" if cut else "weights flipped"
    elif form == "header":
        what = _other_header(weights, rng)
    else:
        what = _other_files(broken, rng)
    picture = str(world.pictures / "red.png")
    commands = {
        "vqa": ["ask", picture, "what square?", "--adapter", str(broken)],
        "caption": ["caption", picture, "--adapter", str(broken)],
        "retrieval": ["evaluate", str(_run(world, folder, "retrieval", "pairs.json")), "--adapter", str(broken)],
    }
    if task == "vqa" and rng.random() < 0.3:
        commands["vqa"] = ["evaluate", str(_run(world, folder, "vqa", "vqa.json")), "--adapter", str(broken)]
    return Case(f"{task} {form}: {what}", commands[task], ("broken", "nobody/nothing"))  # the base that it names


def _run(world: World, folder: Path, task: str, file: str, base: str | None = None) -> Path:
    values = config(world, task, str(folder / "run"), test=str(world.folder / file))
    if base:
        values["model"]["base"] = base
    run = folder / "run.yaml"
    run.write_text(yaml.safe_dump(values))
    return run


def _other_tensors(weights: Path, rng: random.Random) -> str:
    state, what = mutated_state(load_file(weights), rng)
    kept = {str(key).encode("ascii", "replace").decode(): value for key, value in state.items()}
    if any(not isinstance(value, Tensor) for value in kept.values()):
        kept = {key: value for key, value in kept.items() if isinstance(value, Tensor)}
    save_file({key: value.contiguous().clone() for key, value in kept.items()}, weights)
    return what


def _other_header(weights: Path, rng: random.Random) -> str:
    """Safetensors: eight bytes of length, a JSON header, the data."""
    content = weights.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, what = mutated(json.loads(content[8 : 8 + size]), rng)
    text = as_json(header)
    length = rng.choice((len(text), len(text), len(text), 0, 2**63, 2**40, len(text) + 5))
    weights.write_bytes(length.to_bytes(8, "little") + text + content[8 + size :])
    return f"{what} length {length}"


def _other_files(broken: Path, rng: random.Random) -> str:
    name = rng.choice((CONFIG, WEIGHTS))
    kind = rng.choice(("none", "folder", "pipe", "loop", "exchanged", "empty", "file", "other base"))
    file = broken / name
    if kind == "file":
        shutil.rmtree(broken)
        broken.write_bytes(b"x")
    elif kind == "exchanged":
        (broken / CONFIG).rename(broken / "x")
        (broken / WEIGHTS).rename(broken / CONFIG)
        (broken / "x").rename(broken / WEIGHTS)
    elif kind == "other base":
        values = json.loads((broken / CONFIG).read_text())
        values["base_model_name_or_path"] = rng.choice(("", "x" * 5000, "/", "..", "nobody/nothing", "\x00", "a b"))
        (broken / CONFIG).write_text(json.dumps(values))
    else:
        file.unlink()
        {
            "none": lambda: None, "folder": file.mkdir, "pipe": lambda: os.mkfifo(file),
            "loop": lambda: file.symlink_to(file), "empty": file.touch,
        }[kind]()  # fmt: skip
    return f"{kind} {name}"


def pth(world: World, rng: random.Random, folder: Path) -> Case:
    """A `.pth` with mutated tensors, code, other content or damage, converted or taken as a base."""
    source = rng.choice(("blip", "theirs", "vqa"))
    file = folder / "broken.pth"
    form = rng.choice(("tensors", "tensors", "tensors", "odd", "code", "code", "form", "bytes", "files"))
    state: State = torch.load(world.folder / f"{source}.pth", weights_only=True)["model"]
    if form in ("tensors", "odd"):
        if form == "tensors":
            state, what = mutated_state(state, rng)
        else:
            key = rng.choice(list(state))
            state[key], kind = odd_tensor(state[key], rng)
            what = f"{kind} {key}"
        torch.save({"model": state}, file)
    elif form == "bytes":
        content = (world.folder / f"{source}.pth").read_bytes()
        cut = rng.random() < 0.4
        file.write_bytes(content[: rng.randrange(len(content))] if cut else flipped(content, rng, 10))
        what = "cut" if cut else "flipped"
    elif form == "files":
        what = rng.choice(("none", "folder", "pipe", "loop", "link"))
        {
            "none": lambda: None, "folder": file.mkdir, "pipe": lambda: os.mkfifo(file),
            "loop": lambda: file.symlink_to(file), "link": lambda: file.symlink_to("/dev/zero"),
        }[what]()  # fmt: skip
    else:
        content, what = with_code(folder, state, rng) if form == "code" else other_forms(state, rng)
        file.write_bytes(content)
    command = rng.choice(("auto", "auto", "blip", "uniadapter", "base"))
    if command == "base":
        (folder / "vocab.txt").write_bytes(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nsquare\n")
        task, used = ("vqa", "vqa.json") if source == "vqa" else ("retrieval", "pairs.json")
        arguments = ["evaluate", str(_run(world, folder, task, used, str(file)))]
    else:
        arguments = ["convert", str(file), str(folder / "out"), "--kind", command, *HEADS]
        arguments = arguments[: 5 if rng.random() < 0.2 else None]
    return Case(f"{source} {form}: {what} ({command})", arguments, ("broken.pth",))
