"""A base or an adapter with all that belongs to it, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.checkpoints.adapter_folder import read_adapter_config
from uniadapter.checkpoints.adapters import load_adapter
from uniadapter.checkpoints.folder_names import config_file
from uniadapter.checkpoints.loading import load_model, load_tokenizer, task_name
from uniadapter.errors import CheckpointError
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings


@dataclass(frozen=True)
class Pretrained:
    """What `from_pretrained` loaded.

    Args:
        model: a BLIP in evaluation mode, with the adapter in use if there is one.
        tokenizer: the base's.
        task: "retrieval", "vqa" or "caption".
        base: what the base is called.
        adapter: the folder that the adapter came from; None for a bare base.
        settings: what the adapter is asked with. `ask`, `caption`, `image_features` and `text_features` take them up by
            themselves; they are here to be read.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: str
    base: str
    adapter: Path | None = None
    settings: InferenceSettings = NO_SETTINGS


def from_pretrained(
    source: str | Path = "embedded",
    base: str | Path | None = None,
    task: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    trainable: bool = False,
    check_base: bool = True,
) -> Pretrained:
    """Load an adapter on its base, or a base, with the tokenizer and what it must be asked with.

    Args:
        source: an adapter folder, a run folder with one in it, or a base: a folder of transformers files, one of BLIP's
            `.pth` files, a hub id, or "embedded" for the small one in this package.
        base: of an adapter; None takes the one that it names.
        task: "retrieval", "vqa" or "caption"; None takes the adapter's, and of a base "retrieval".
        dtype: of the base's weights.
        trainable: leave gradients on the adapter, to train on.
        check_base: refuse a base that the adapter was not made for.

    Raises:
        CheckpointError: something is missing, broken, or doesn't belong together; names the file.
        ConfigError: there is no such task or dtype.

    Example:
        >>> import uniadapter as ua
        >>> loaded = ua.from_pretrained("embedded")
        >>> ua.text_features(loaded.model, loaded.tokenizer, ["a red box"]).feature.shape
        torch.Size([1, 64])
    """
    folder = _adapter_folder(source)
    if folder is None:
        if base is not None:
            raise CheckpointError(f"{source}: no adapter folder, so it is the base itself: leave `base` away")
        task = task or "retrieval"
        return Pretrained(load_model(source, task, dtype), load_tokenizer(source), task, str(source))
    described = read_adapter_config(folder)
    if task is not None and task_name(task) != described.task:
        raise CheckpointError(f"{folder}: made for {described.task}, not for {task}")
    name = str(base if base is not None else described.base)
    model = load_model(name, described.task, dtype)
    settings = load_adapter(model, folder, trainable=trainable, check_base=check_base).settings
    return Pretrained(model, load_tokenizer(name), described.task, name, folder, settings)


def _adapter_folder(source: str | Path) -> Path | None:
    """The adapter's folder, itself or below a run's; None for a base."""
    try:
        folder = Path(source).expanduser()
        candidates = (folder, folder / "adapter")
        return next((one for one in candidates if config_file(one)), None)
    except (OSError, ValueError, RuntimeError):  # no path: the base's loader says so
        return None
