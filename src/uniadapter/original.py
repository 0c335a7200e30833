"""The original checkpoints as input formats: BLIP's `.pth` files, and the UniAdapter authors'.

The only file that knows their key names. Both are read with `weights_only=True`, so a file that carries code is
refused, and become transformers weights and adapter-set weights.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import BlipConfig

from uniadapter.config import AdapterConfig
from uniadapter.errors import CheckpointError

_VISION = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.(fc[12])\.", r"vision_model.encoder.layers.\1.mlp.\2."),
)
_SAME = re.compile(
    r"^(text_encoder|text_decoder\.bert)\.(embeddings\.(word_embeddings|position_embeddings|LayerNorm)|encoder\.layer\.\d+"
    r"\.(attention|crossattention|intermediate|output)\.)|^text_decoder\.cls\.|^(vision_proj|text_proj|itm_head)\."
)
_MODULES = {
    "adapter_layer_norm_before": "norm",
    "adapter_layer_norm_cross_modal": "norm_cross",
    "down_proj": "down",
    "up_proj": "up_text",
    "visual_up_proj": "up_vision",
    "multi_up_proj": "up_cross",
}
_ADAPTER = re.compile(rf"^adapters\.(\d+)\.({'|'.join(_MODULES)})\.(weight|bias)$")
_KEY_VALUE = re.compile(
    r"^(text_encoder|text_decoder\.bert)\.encoder\.video_(key|value)_adapter\.(down|up)_proj\.(weight|bias)$"
    r"|^(text_encoder|text_decoder\.bert)\.encoder\.video_(key|value)_adapter\.(scale)$"
)
_HEAD = re.compile(r"^(vision_proj|text_proj|itm_head)\.(weight|bias)$")
_TIME = "text_encoder.encoder.time_embed"
# A shared adapter stands in the authors' files again under every layer that uses it.
_COPY = re.compile(rf"\.({'|'.join(_MODULES)})\.(weight|bias)$")
_MOMENTUM = re.compile(r"^(adapters_m|visual_encoder_m|text_encoder_m|vision_proj_m|text_proj_m)\b")


@dataclass
class ImportedAdapter:
    """What the authors' file holds of a method's weights, under this project's names.

    Args:
        config: the set's shape, as read off the tensors.
        state: weights of an `AdapterSet`.
        momentum: the momentum copy of the same keys, where the file has one.
        unused: keys of the file that neither the base nor the adapters use.
    """

    config: AdapterConfig
    state: dict[str, Tensor]
    momentum: dict[str, Tensor] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def first_line(error: Exception) -> str:
    """An error's first line, or its kind where it has no words."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def read_pth(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a `.pth` file, unwrapped from {"model": …}.

    Raises:
        CheckpointError: the file is missing, broken, holds no tensors, or carries code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{path}: refused, since it holds more than tensors and reading it could run code ({reason}); "
            "re-save it with nothing but its state dict"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint ({first_line(error)})") from error
    state = state.get("model", state) if isinstance(state, dict) else {}
    tensors = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors")
    return tensors


def base_name(key: str) -> str | None:
    """The transformers name of a key of BLIP's own files, or None if the base has no such tensor."""
    for pattern, replacement in _VISION:
        if re.search(pattern, key):
            return re.sub(pattern, replacement, key)
    if key.endswith("position_ids") or not _SAME.match(key) or "adapter" in key:
        return None
    return key


def import_base(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """BLIP's weights under transformers' names; tied output embeddings are restored where the file has them once."""
    out = {name: tensor for key, tensor in state.items() if (name := base_name(key)) is not None}
    embedding = out.get("text_decoder.bert.embeddings.word_embeddings.weight")
    head = "text_decoder.cls.predictions."
    if embedding is not None and f"{head}bias" in out:
        out.setdefault(f"{head}decoder.weight", embedding)
        out.setdefault(f"{head}decoder.bias", out[f"{head}bias"])
    return out


def _count(state: dict[str, Tensor], pattern: str) -> int:
    found = [int(m.group(1)) for key in state if (m := re.match(pattern, key))]
    return max(found) + 1 if found else 0


def infer_config(state: dict[str, Tensor], vision_heads: int = 0, text_heads: int = 0) -> BlipConfig:
    """A transformers config for BLIP's own weights, read off their shapes.

    Args:
        state: tensors under BLIP's names.
        vision_heads: attention heads of the visual encoder; 0 means width / 64, as in all of BLIP's files.
        text_heads: the same for the text models.

    Raises:
        CheckpointError: tensors that every BLIP has are missing.
    """
    text = "text_encoder" if "text_encoder.embeddings.word_embeddings.weight" in state else "text_decoder.bert"
    try:
        patch = state["visual_encoder.patch_embed.proj.weight"]
        positions = state["visual_encoder.pos_embed"]
        words = state[f"{text}.embeddings.word_embeddings.weight"]
        text_positions = state[f"{text}.embeddings.position_embeddings.weight"]
        vision_mlp = state["visual_encoder.blocks.0.mlp.fc1.weight"]
        text_mlp = state[f"{text}.encoder.layer.0.intermediate.dense.weight"]
    except KeyError as error:
        raise CheckpointError(f"not a BLIP checkpoint: it has no {error.args[0]}") from error
    side = int((positions.shape[1] - 1) ** 0.5)
    width, text_width = patch.shape[0], words.shape[1]
    dec = words.shape[0] - 2  # BLIP adds [DEC] and [ENC] behind BERT's words, in this order
    projection = state.get("vision_proj.weight")
    return BlipConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": vision_mlp.shape[0],
            "num_hidden_layers": _count(state, r"^visual_encoder\.blocks\.(\d+)\."),
            "num_attention_heads": vision_heads or max(1, width // 64),
            "image_size": side * patch.shape[-1],
            "patch_size": patch.shape[-1],
            "layer_norm_eps": 1e-6,
            "initializer_range": 0.02,
        },
        text_config={
            "vocab_size": words.shape[0],
            "hidden_size": text_width,
            "encoder_hidden_size": width,
            "intermediate_size": text_mlp.shape[0],
            "num_hidden_layers": _count(state, rf"^{re.escape(text)}\.encoder\.layer\.(\d+)\."),
            "num_attention_heads": text_heads or max(1, text_width // 64),
            "max_position_embeddings": text_positions.shape[0],
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "label_smoothing": 0.1,
            "bos_token_id": dec,
            "pad_token_id": 0,
            "eos_token_id": 102 if words.shape[0] == 30524 else 3,
            "sep_token_id": 102 if words.shape[0] == 30524 else 3,
            "is_decoder": True,
        },
        image_text_hidden_size=256 if projection is None else projection.shape[0],
        projection_dim=256 if projection is None else projection.shape[0],
    )


def adapter_name(key: str) -> str | None:
    """The name in an `AdapterSet` of a key of the authors' files, or None."""
    if match := _ADAPTER.match(key):
        layer, module, parameter = match.groups()
        return f"layers.{layer}.{_MODULES[module]}.{parameter}"
    if match := _KEY_VALUE.match(key):
        stack, kind, part, parameter, stack_of_scale, kind_of_scale, scale = match.groups()
        prefix = "decoder_" if (stack or stack_of_scale) == "text_decoder.bert" else ""
        return f"{prefix}{kind_of_scale}.scale" if scale else f"{prefix}{kind}.{part}.{parameter}"
    if _HEAD.match(key):
        return f"heads.{key}"
    return "time" if key == _TIME else None


def import_adapter(state: dict[str, Tensor], frame_aware: bool = False) -> ImportedAdapter:
    """The authors' adapters, key/value adapters, temporal embedding and heads.

    Args:
        state: tensors under the authors' names.
        frame_aware: whether the file was trained with frame-aware attention, which has no weights to tell it by.

    Raises:
        CheckpointError: the file has no `adapters.N`.
    """
    down = state.get("adapters.0.down_proj.weight")
    if down is None:
        raise CheckpointError("not a checkpoint of the UniAdapter authors: it has no adapters.0.down_proj.weight")
    vision_layers = _count(state, r"^visual_encoder\.blocks\.(\d+)\.")
    text_layers = _count(state, r"^text_(?:encoder|decoder\.bert)\.encoder\.layer\.(\d+)\.")
    key = state.get("text_encoder.encoder.video_key_adapter.down_proj.weight")
    time = state.get(_TIME)
    imported = ImportedAdapter(
        AdapterConfig(
            bottleneck=down.shape[0],
            key_value=0 if key is None else key.shape[0],
            frame_aware=frame_aware,
            temporal_frames=0 if time is None else time.shape[1],
            heads=any(_HEAD.match(k) for k in state),
            init="released",
        ),
        {},
    )
    for name, tensor in state.items():
        ours = adapter_name(name)
        if ours is not None and not _superfluous(ours, vision_layers, text_layers):
            imported.state[ours] = tensor
        elif _MOMENTUM.match(name):
            twin = adapter_name(re.sub(r"_m\b", "", name, count=1))
            if twin is not None and not _superfluous(twin, vision_layers, text_layers):
                imported.momentum[twin] = tensor
        elif ours is not None or (base_name(name) is None and not _known(name, state)):
            imported.unused.append(name)
    return imported


def _superfluous(ours: str, vision_layers: int, text_layers: int) -> bool:
    """Whether a layer's tensor serves no use there: text's behind the last text layer, vision's behind vision's."""
    match = re.match(r"^layers\.(\d+)\.(\w+)\.", ours)
    if not match:
        return False
    index, module = int(match.group(1)), match.group(2)
    if module in ("up_text", "up_cross", "norm_cross"):
        return index >= text_layers
    return module == "up_vision" and index >= vision_layers


def _known(name: str, state: dict[str, Tensor]) -> bool:
    """A key that is left out on purpose: buffers, and second mentions of a shared adapter."""
    if name.endswith("position_ids") or name in ("temp", "image_queue", "text_queue", "idx_queue", "ptr_queue"):
        return True
    match = _COPY.search(name)
    if match and not name.startswith("adapters"):
        suffix = f".{match.group(1)}.{match.group(2)}"
        return any(k.endswith(suffix) and torch.equal(state[k], state[name]) for k in state if _ADAPTER.match(k))
    return False
