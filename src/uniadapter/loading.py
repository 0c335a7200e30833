"""Where a base comes from: the hub, a folder of transformers files, one of BLIP's `.pth` files, or this package."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from uniadapter.assets import asset
from uniadapter.checkpoint import AdapterFile, write_adapter
from uniadapter.config import ConfigError
from uniadapter.files import WriteError, written_into
from uniadapter.identity import identity_of
from uniadapter.inject import HEADS
from uniadapter.original import (
    CheckpointError,
    ImportedAdapter,
    base_name,
    first_line,
    import_adapter,
    import_base,
    infer_config,
    read_pth,
)

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
TASK_CLASSES: dict[str, type[PreTrainedModel]] = {
    "retrieval": BlipForImageTextRetrieval,
    "vqa": BlipForQuestionAnswering,
    "caption": BlipForConditionalGeneration,
}


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' table of unexpected keys: a folder serves several classes, so there always are some."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _is_pth(base: str) -> bool:
    return Path(base).suffix in (".pth", ".pt", ".bin") and not Path(base).is_dir()


def load_model(base: str = EMBEDDED, task: str = "retrieval", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A BLIP task model in evaluation mode.

    Args:
        base: hub id, local folder, `.pth` file of BLIP, or "embedded" for the small one in this package.
        task: "retrieval", "vqa" or "caption": which of transformers' three task classes.
        dtype: of the weights.

    Raises:
        CheckpointError: the base cannot be read, or lacks weights that this task's class needs.
    """
    cls = TASK_CLASSES[task]
    if _is_pth(base):
        state = read_pth(base)
        model = cls(infer_config(state))
        missing, _ = model.load_state_dict(import_base(state), strict=False)
        _refuse_missing(base, cls, missing)
        model.config.name_or_path = base
        return model.to(dtype).eval()
    path = str(asset("backbone")) if base == EMBEDDED else base
    try:
        with _quietly():
            model, info = cls.from_pretrained(path, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{base}: neither a folder of transformers files nor a hub id in reach ({reason})"
        ) from error
    _refuse_missing(base, cls, list(info["missing_keys"]))
    model.config.name_or_path = base
    if base == EMBEDDED and task == "vqa":
        _teach_questions(model, asset("backbone") / "question_encoder.safetensors")
    return model.eval()


def _teach_questions(model: PreTrainedModel, file: Path) -> None:
    """Put in what the question encoder has of its own; the embedded base ships it apart, as BLIP has checkpoints."""
    own = {name: tensor.to(model.dtype) for name, tensor in load_file(file).items()}
    _, unexpected = model.load_state_dict(own, strict=False)
    if unexpected:
        raise CheckpointError(f"{file}: holds {unexpected[0]}, which the question model lacks: reinstall the package")


def _refuse_missing(base: str, cls: type[PreTrainedModel], missing: list[str]) -> None:
    """Fresh heads are trained with the adapters and only worth a warning; a missing layer is not."""
    tied = "text_decoder.cls.predictions.decoder."
    layers = [key for key in missing if key.split(".")[0] not in HEADS and not key.startswith(tied)]
    if layers:
        raise CheckpointError(
            f"{base}: lacks {len(layers)} tensors that {cls.__name__} needs, such as {layers[0]}; "
            "it was made for another task, choose a base that fits"
        )
    fresh = sorted({key.split(".")[0] for key in missing if key.split(".")[0] in HEADS})
    if fresh:
        logger.warning("%s has no %s: starting from a random one, to be trained", base, ", ".join(fresh))


def load_tokenizer(base: str = EMBEDDED) -> PreTrainedTokenizerBase:
    """The base's tokenizer; beside a `.pth` file, BERT's with [DEC] and [ENC] added in BLIP's order.

    Raises:
        CheckpointError: there is none; a `vocab.txt` or folder `tokenizer` beside a `.pth` works offline.
    """
    path = base
    if base == EMBEDDED:
        path = str(asset("backbone"))
    elif _is_pth(base):
        beside = Path(base).parent
        path = next(
            (str(p) for p in (beside / "tokenizer", beside) if (p / "vocab.txt").is_file()), "bert-base-uncased"
        )
    try:
        # A bare vocab.txt does not say what it is, so BERT's own class is asked; in transformers 5 it is a fast one.
        tokenizer = (BertTokenizer if _is_pth(base) else AutoTokenizer).from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{base}: no tokenizer at {path} ({first_line(error)}); put BERT's vocab.txt beside the weights"
        ) from error
    if _is_pth(base):
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    return tokenizer


def check_config(model: PreTrainedModel) -> list[str]:
    """Settings of a hub config that differ from what BLIP was trained with, as lines to warn with."""
    text, vision = model.config.text_config, model.config.vision_config
    lines = []
    if text.hidden_size == 768 and text.num_attention_heads != 12:
        lines.append(f"text_config.num_attention_heads is {text.num_attention_heads}; BERT-base has 12")
    if vision.layer_norm_eps != 1e-6:
        lines.append(f"vision_config.layer_norm_eps is {vision.layer_norm_eps}; BLIP has 1e-6")
    if not text.is_decoder:
        raise ConfigError("text_config.is_decoder is false, so this model has no cross-attention to adapt")
    return lines


def convert_adapter(path: Path | str, output: Path | str, frame_aware: bool = False, **heads: int) -> ImportedAdapter:
    """Write the authors' `.pth` as an adapter folder.

    The file holds the whole model, so the base's hash is taken from it: the folder then loads on that base from
    wherever it comes.

    Args:
        path: their checkpoint.
        output: the adapter folder to write.
        frame_aware: whether it was trained with frame-aware attention; the file does not tell.
        heads: `vision_heads`, `text_heads` for widths other than 64 a head.

    Returns:
        What was found, unused keys included.

    Raises:
        CheckpointError: the file is broken, carries code, or holds no adapters.
    """
    state = read_pth(path)
    imported = import_adapter(state, frame_aware)
    task = "vqa" if any(key.startswith("text_decoder.") for key in state) else "retrieval"
    model = _model_of(state, task, heads)
    identity = identity_of(model)
    described = AdapterFile(
        imported.config, str(path), identity.tensors["float32"], type(model).__name__, task, identity=identity
    )
    write_adapter(Path(output), described, {k: v.contiguous() for k, v in imported.state.items()})
    return imported


def _model_of(state: dict[str, Any], task: str, heads: dict[str, int]) -> PreTrainedModel:
    model = TASK_CLASSES[task](infer_config(state, **heads))
    missing, _ = model.load_state_dict(import_base(state), strict=False)
    _refuse_missing("the checkpoint", TASK_CLASSES[task], missing)
    return model.eval()


def convert_blip(path: Path | str, output: Path | str, **heads: int) -> list[str]:
    """Write one of BLIP's `.pth` files as a folder of transformers files.

    All of the base's tensors go into the folder, so the pre-trained files, which hold a text encoder, heads and a
    decoder, load into each of transformers' BLIP task classes.

    Args:
        path: BLIP's checkpoint.
        output: the folder to write.
        **heads: `vision_heads`, `text_heads` for widths other than 64 a head.

    Returns:
        Keys of the file that were not used.

    Raises:
        CheckpointError: the file is broken, carries code, or is no BLIP.
    """
    state = read_pth(path)
    encoder = any(key.startswith("text_encoder.") for key in state)
    decoder = any(key.startswith("text_decoder.") for key in state)
    task = "vqa" if encoder and decoder and "itm_head.weight" not in state else "retrieval" if encoder else "caption"
    model = _model_of(state, task, heads)
    model.config.architectures = [type(model).__name__]
    tied = "text_decoder.cls.predictions.decoder."
    tensors = {key: value.contiguous() for key, value in import_base(state).items() if not key.startswith(tied)}
    try:
        with written_into(output) as temporary:
            model.config.save_pretrained(temporary)
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
    except (WriteError, SafetensorError) as error:
        raise CheckpointError(str(error)) from error
    return [key for key in state if base_name(key) is None]
