"""Convert `.pth` files: the UniAdapter authors' to adapter folders, BLIP's to folders of transformers files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from uniadapter.checkpoints.adapter_folder import AdapterFile, TaskName, write_adapter
from uniadapter.checkpoints.bases import CONFIG
from uniadapter.checkpoints.loading import build_model, errors_about, quiet_transformers
from uniadapter.checkpoints.pth import read_pth
from uniadapter.checkpoints.weights import check_shapes
from uniadapter.errors import CheckpointError
from uniadapter.files.writing import atomic_folder, write_text
from uniadapter.model.backbone import CLIP_MEAN, CLIP_STD
from uniadapter.model.blip.backbone import BlipBackbone
from uniadapter.model.blip.loading import TIED
from uniadapter.model.blip.original import ImportedAdapter, base_name, import_adapter, import_base, infer_config
from uniadapter.model.blip.tokenizer import load_tokenizer_from
from uniadapter.model.dispatch import backbone
from uniadapter.model.identity import identity_of

_CLASSES: dict[str, type[PreTrainedModel]] = {
    "retrieval": BlipForImageTextRetrieval,
    "vqa": BlipForQuestionAnswering,
    "caption": BlipForConditionalGeneration,
}


@dataclass
class Converted:
    """The result of `convert_blip`.

    Args:
        unused: keys of the file that were not used.
        no_tokenizer: why the folder has no tokenizer, and where to get one; empty where it has.
    """

    unused: list[str] = field(default_factory=list)
    no_tokenizer: str = ""


def convert_adapter(path: Path | str, output: Path | str, frame_aware: bool = False, **heads: int) -> ImportedAdapter:
    """Convert a `.pth` file of the UniAdapter authors to an adapter folder.

    The file contains the base too, whose hash is computed from it, so the folder loads on that base from any source.

    Args:
        path: of the checkpoint.
        output: the adapter folder to write.
        frame_aware: whether it was trained with frame-aware attention, which has no weights to tell it by.
        heads: `vision_heads`, `text_heads`: numbers of attention heads, where these are not 64 wide.

    Returns:
        The adapter, and the file's unused keys.

    Raises:
        CheckpointError: the file is broken, carries code, or holds no adapters; names it.
    """
    path, output = Path(path).expanduser(), Path(output).expanduser()
    with errors_about(path):
        state = read_pth(path)
        imported = import_adapter(state, frame_aware)
        task: TaskName = "vqa" if any(key.startswith("text_decoder.") for key in state) else "retrieval"
        model = _model_of(state, task, heads, str(path))
        identity = identity_of(model)
        described = AdapterFile(
            imported.config, str(path), identity.tensors["float32"], type(model).__name__, task, identity=identity
        )
        _check_adapter(imported, model)
    write_adapter(output, described, {k: v.contiguous() for k, v in imported.state.items()})
    return imported


def _check_adapter(imported: ImportedAdapter, model: PreTrainedModel) -> None:
    """Compare names and shapes with those of an adapter set of that config; the model is moved to "meta" for that."""
    model.to(device="meta")  # type: ignore[call-arg]
    with torch.device("meta"):
        needed = backbone(model).new_set(imported.config).state_dict()
    for name, tensor in needed.items():
        found = imported.state.get(name)
        if found is None:
            raise CheckpointError(f"holds adapters, but not {name}, which one of their shape has")
        if found.shape != tensor.shape:
            raise CheckpointError(f"{name} has the shape {list(found.shape)}, where {list(tensor.shape)} is needed")
        if not torch.isfinite(found).all():
            raise CheckpointError(f"{name} holds NaN or infinite values; the file is damaged")
    extra = sorted(set(imported.state) - set(needed))
    if extra:
        raise CheckpointError(f"holds {extra[0]}, which a set of its other sizes lacks")


def _model_of(state: Mapping[str, Tensor], task: str, heads: dict[str, int], name: str) -> PreTrainedModel:
    cls, config, tensors = _CLASSES[task], infer_config(dict(state), **heads), import_base(dict(state))
    tied = (TIED,) if config.text_config.tie_word_embeddings else ()
    check_shapes(
        name, cls, config, {key: tuple(value.shape) for key, value in tensors.items()}, tuple(BlipBackbone.heads), tied
    )
    return build_model(name, cls, config, tensors, torch.float32)


def convert_blip(path: Path | str, output: Path | str, tokenizer: Path | str | None = None, **heads: int) -> Converted:
    """Convert one of BLIP's `.pth` files to a folder of transformers files, with tokenizer and preprocessor config.

    The folder gets all of the base's tensors. BLIP's pre-trained files contain text encoder, heads and decoder, and so
    load into each of transformers' BLIP task classes.

    Args:
        path: BLIP's checkpoint.
        output: the folder to write; other files in it stay.
        tokenizer: a folder with one, or a `vocab.txt`; None takes what lies beside the checkpoint, or BERT's from the
            hub's cache or the hub, and converts without one where there is none.
        **heads: `vision_heads`, `text_heads`: numbers of attention heads, where these are not 64 wide.

    Returns:
        The unused keys, and whether a tokenizer is still missing.

    Raises:
        CheckpointError: the file is broken, carries code, or is no BLIP; the tokenizer that was named does not fit.
        WriteError: the folder cannot be written.
    """
    path, output = Path(path).expanduser(), Path(output).expanduser()
    with errors_about(path):
        state = read_pth(path)
        encoder = any(key.startswith("text_encoder.") for key in state)
        decoder = any(key.startswith("text_decoder.") for key in state)
        vqa = encoder and decoder and "itm_head.weight" not in state
        task = "vqa" if vqa else "retrieval" if encoder else "caption"
        config = cast(BlipConfig, _model_of(state, task, heads, str(path)).config)
    converted = Converted([key for key in state if base_name(key) is None])
    words: PreTrainedTokenizerBase | None = None
    try:
        with quiet_transformers():
            words = _tokenizer(path, tokenizer, config)
    except CheckpointError as error:
        if tokenizer is not None:
            raise
        converted.no_tokenizer = str(error)
    config.architectures = [_CLASSES[task].__name__]
    tensors = {key: value.contiguous() for key, value in import_base(state).items() if not key.startswith(TIED)}
    _write_base(output, config, tensors, words)
    return converted


def _tokenizer(path: Path, chosen: Path | str | None, config: BlipConfig) -> PreTrainedTokenizerBase:
    if chosen is None:
        return load_tokenizer_from(path, str(path), config)
    source = Path(chosen).expanduser()
    if not source.exists():
        raise CheckpointError(f"{chosen}: no such file or folder to take a tokenizer from")
    return load_tokenizer_from(source, str(chosen), config, from_pth=True)


def _write_base(
    folder: Path, config: BlipConfig, tensors: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase | None
) -> None:
    try:
        with atomic_folder(folder) as temporary:
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
            if tokenizer is not None:
                tokenizer.save_pretrained(temporary)
            write_text(temporary / "preprocessor_config.json", json.dumps(_preprocessing(config), indent=2) + "\n")
            write_text(temporary / CONFIG, config.to_json_string())
    except SafetensorError as error:  # how its writer reports a full disk
        raise CheckpointError(f"{folder}: could not be written ({error}); nothing there was changed") from error


def _preprocessing(config: BlipConfig) -> dict[str, Any]:
    side = config.vision_config.image_size
    return {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "size": {"height": side, "width": side},
        "resample": 3,  # bicubic
        "rescale_factor": 1 / 255,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }
