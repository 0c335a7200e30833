"""Load an adapter with its base and tokenizer, or a base with its tokenizer, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.checkpoints.adapter_folder import read_adapter_config
from uniadapter.checkpoints.adapters import load_adapter
from uniadapter.checkpoints.folder_names import config_file
from uniadapter.checkpoints.loading import load_model, load_tokenizer, task_name
from uniadapter.checkpoints.locating import locate_adapter
from uniadapter.checkpoints.sharing import is_address
from uniadapter.errors import CheckpointError
from uniadapter.files.assets import PREFIX
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings


@dataclass(frozen=True)
class Pretrained:
    """What `from_pretrained` loaded.

    Args:
        model: in evaluation mode, with the adapter active if there is one.
        tokenizer: the base's.
        task: "retrieval", "vqa" or "caption".
        base: name of the base.
        adapter: the adapter's folder; None for a base alone.
        settings: the adapter's inference settings, for information: `ask`, `caption`, `image_features` and
            `text_features` use them automatically.
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
    """Load an adapter on its base, or a base alone, with tokenizer and inference settings.

    Args:
        source: an adapter folder, a run folder with one in it, `embedded:NAME` for an adapter of this package, or a
            base: a folder of transformers files, one of BLIP's `.pth` files, a hub id, or "embedded" for the small one
            in this package.
        base: to load an adapter on; None takes the one that its folder names.
        task: "retrieval", "vqa" or "caption"; None takes the adapter's, or "retrieval" for a base.
        dtype: of the base's weights.
        trainable: whether the adapter's parameters get gradients, to train it further.
        check_base: refuse a base with other weights than the one that the adapter was trained on.

    Raises:
        CheckpointError: something is missing or broken, or adapter and base do not fit; names the file.
        ConfigError: there is no such task or dtype.

    Example:
        >>> import uniadapter as ua
        >>> loaded = ua.from_pretrained("embedded")
        >>> ua.text_features(loaded.model, loaded.tokenizer, ["a red box"]).feature.shape
        torch.Size([1, 64])
    """
    folder = adapter_folder(source)
    if folder is None:
        if base is not None:
            raise CheckpointError(f"{source}: no adapter folder, so it is the base itself: leave out `base`")
        task = task or "retrieval"
        return Pretrained(load_model(source, task, dtype), load_tokenizer(source), task, str(source))
    described = read_adapter_config(folder)
    if task is not None and task_name(task) != described.task:
        raise CheckpointError(f"{folder}: made for {described.task}, not for {task}")
    name = str(base if base is not None else described.base)
    model = load_model(name, described.task, dtype)
    settings = load_adapter(model, folder, trainable=trainable, check_base=check_base).settings
    return Pretrained(model, load_tokenizer(name), described.task, name, folder, settings)


def adapter_folder(source: str | Path) -> Path | None:
    """The adapter folder: `source` itself, or `adapter` in a run's folder; None for a base."""
    if str(source).startswith(PREFIX) or is_address(source):
        return locate_adapter(source)
    try:
        folder = Path(source).expanduser()
        candidates = (folder, folder / "adapter")
        return next((one for one in candidates if config_file(one)), None)
    except (OSError, ValueError, RuntimeError):  # not a path: loading the base will raise
        return None
