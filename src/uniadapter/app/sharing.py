"""The commands `push` and `pull`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from uniadapter.app.display import say
from uniadapter.checkpoints.adapter_files import read_adapter_config
from uniadapter.checkpoints.card import MARK
from uniadapter.checkpoints.folder_names import CARD_NAME, config_file
from uniadapter.checkpoints.sharing import pull_folder, push_folder
from uniadapter.errors import CheckpointError
from uniadapter.files.yaml_files import read_yaml
from uniadapter.report.metrics import read_metrics
from uniadapter.report.tables import markdown_table
from uniadapter.runs.steps import ADAPTER

_HERE = "path/to/this/folder"  # in the card of a folder that nobody has moved


def run_push(source: Path, target: str, licence: str = "", private: bool = False) -> str:
    """Copy an adapter elsewhere, with a card that tells what it was trained on and what it reached.

    Args:
        source: a run folder, whose figures and settings go into the card, or an adapter folder.
        target: `hf://USER/NAME`, another address that fsspec knows, or a folder.
        licence: by its SPDX name; "" leaves it out.
        private: a repository that is created on the hub.

    Returns:
        The address.

    Raises:
        CheckpointError: there is no adapter, or it cannot be written there.
    """
    folder = source / ADAPTER if config_file(source / ADAPTER) else source
    if not config_file(folder):
        raise CheckpointError(f"{source}: no adapter and no run with one in it")
    address = push_folder(folder, target, shared_card(folder, source, target, licence), private)
    say(f"{address}\nuse it: ua.from_pretrained({address!r}), or --adapter {address}")
    return address


def run_pull(source: str, folder: Path) -> Path:
    """Copy an adapter from elsewhere into a folder, and say what it is.

    Raises:
        CheckpointError: there is none, it is broken, or the folder cannot be written.
    """
    written = pull_folder(source, folder)
    described = read_adapter_config(written)
    say(f"{written}: {described.task}, r = {described.adapter.bottleneck}, for the base {described.base}")
    return written


def shared_card(folder: Path, run: Path, address: str, licence: str = "") -> str:
    """The model card of a copy: the folder's own, with address, licence, training and figures.

    Args:
        folder: of the adapter.
        run: with `metrics.json` and `config.yaml`; where there are none, the card says nothing of them.
        address: where it will be.
        licence: by its SPDX name.
    """
    text = (folder / CARD_NAME).read_text(encoding="utf-8").replace(_HERE, address)
    if licence:
        text = text.replace(MARK, f"{MARK}\nlicense: {re.sub(r'[^A-Za-z0-9.+-]', '', licence)}", 1)
    parts = [text.rstrip()]
    if (run / "config.yaml").is_file():
        parts.append("## Training\n\n" + "\n".join(f"- {name}: {value}" for name, value in _told(run).items()))
    if (run / "metrics.json").is_file():
        metrics = read_metrics(run / "metrics.json")
        told = f"On the test splits, metrics in 0 to 100, seed {metrics.seed}."
        parts.append(f"## Figures\n\n{told}\n\n{markdown_table(metrics)}")
    return "\n\n".join(parts) + "\n"


def _told(run: Path) -> dict[str, Any]:
    """What a card says of a run's config; of paths the names alone."""
    values = read_yaml(run / "config.yaml")
    data, train = values.get("data") or {}, values.get("train") or {}
    named = {split: Path(str(data[split])).name for split in ("train", "val", "test") if data.get(split)}
    kept = {name: train[name] for name in ("epochs", "max_steps", "batch_size", "lr", "seed") if train.get(name)}
    return {**{f"data, {split}": name for split, name in named.items()}, **kept}
