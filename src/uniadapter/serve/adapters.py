"""The adapters that a server offers, on as few models as they need, whose equal weights are in memory once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.checkpoints.adapter_folder import read_adapter_config
from uniadapter.checkpoints.adapters import load_adapter
from uniadapter.checkpoints.bases import EMBEDDED
from uniadapter.checkpoints.embedded_adapters import embedded_adapters
from uniadapter.checkpoints.loading import load_model, load_tokenizer
from uniadapter.checkpoints.locating import locate_adapter
from uniadapter.checkpoints.pretrained import Pretrained, adapter_folder
from uniadapter.checkpoints.shared_weights import share_weights
from uniadapter.errors import DataError
from uniadapter.files.assets import PREFIX
from uniadapter.model.sets import adapter_names, select_adapter
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings

BASE = "base"  # the name of the model without any adapter


@dataclass(frozen=True)
class Adapter:
    """An adapter that a request can name.

    Args:
        name: by which it is named; with its task it is unique.
        task: "retrieval", "vqa" or "caption".
        model: that holds it.
        tokenizer: the base's.
        part: name of its set in the model; None for the base alone.
        settings: that it was trained with.
    """

    name: str
    task: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    part: str | None
    settings: InferenceSettings


class Adapters:
    """The adapters of a server.

    Args:
        searching: base and adapter of the index.
        sources: further ones: folders, `embedded:NAME`, run folders, addresses. None takes those of this package where
            the index was made with its base.

    Raises:
        CheckpointError: one cannot be loaded.
    """

    def __init__(self, searching: Pretrained, sources: Sequence[str] | None) -> None:
        if sources is None:
            sources = [PREFIX + name for name in embedded_adapters()] if searching.base == EMBEDDED else []
        self._models: dict[tuple[str, str], tuple[PreTrainedModel, PreTrainedTokenizerBase]] = {
            (searching.base, "retrieval"): (searching.model, searching.tokenizer)
        }
        self._all: dict[tuple[str, str], Adapter] = {}
        own = next(iter(adapter_names(searching.model)), None)
        located = {source: adapter_folder(source) or locate_adapter(source) for source in dict.fromkeys(sources)}
        described = {source: read_adapter_config(folder) for source, folder in located.items()}
        for one in described.values():
            if (one.base, one.task) not in self._models:
                self._models[one.base, one.task] = load_model(one.base, one.task), load_tokenizer(one.base)
        self.freed = share_weights(*(model for model, _ in self._models.values()))
        named = _title(str(searching.adapter)) if searching.adapter else BASE
        self.searching = self._add(named, "retrieval", searching.base, own, searching.settings)
        for source, one in described.items():
            if searching.adapter is None or located[source].resolve() != Path(searching.adapter).resolve():
                self._load(source, located[source], one.base, one.task)
        for base, task in self._models:
            if (task, BASE) not in self._all:
                self._add(BASE, task, base, None, NO_SETTINGS)
        for model, _ in self._models.values():
            model.eval().requires_grad_(False)
            select_adapter(model, None)
        select_adapter(searching.model, own, trainable=False)

    def _load(self, source: str, folder: Path, base: str, task: str) -> None:
        model, _ = self._models[base, task]
        title = _unique(_title(source), {name for of, name in self._all if of == task})
        part = _unique(re.sub(r"\W+", "_", title) + "_set", set(adapter_names(model)))
        loaded = load_adapter(model, folder, part)
        self._add(title, task, base, part, loaded.settings)

    def _add(self, name: str, task: str, base: str, part: str | None, settings: InferenceSettings) -> Adapter:
        model, tokenizer = self._models[base, task]
        self._all[task, name] = Adapter(name, task, model, tokenizer, part, settings)
        return self._all[task, name]

    def of(self, task: str) -> list[Adapter]:
        """Those for a task, in the order in which they were given; the base last."""
        found = [one for one in self._all.values() if one.task == task]
        return sorted(found, key=lambda one: one.part is None)

    def named(self, task: str, name: str) -> Adapter:
        """One of a task; "" takes the first.

        Raises:
            DataError: there is none; says which there are.
        """
        known = self.of(task)
        found = next((one for one in known if one.name == name or not name), None)
        if found is None:
            have = ", ".join(one.name for one in known) or "none"
            raise DataError(f"there is no adapter {name!r} for {task}; there is {have}", "no adapter")
        return found


def _title(source: str) -> str:
    """A short name: that of the folder, or of the run whose adapter it is."""
    path = Path(source.removeprefix(PREFIX))
    return (path.parent.name if path.name == "adapter" else path.name) or source


def _unique(name: str, taken: set[str]) -> str:
    number, found = 2, name
    while found in taken:
        number, found = number + 1, f"{name}_{number}"
    return found
