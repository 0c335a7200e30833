"""Key names of original checkpoints, BLIP's and the UniAdapter authors', mapped to transformers' and this package's.

No other file knows them. The files are read by `checkpoints.pth`, which refuses code in them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import BlipConfig

from uniadapter.config import AdapterConfig
from uniadapter.errors import CheckpointError

BERT_WORDS = 30522  # vocabulary of bert-base-uncased; BLIP adds [DEC] and [ENC] after it
_VISION = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d{1,4})\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d{1,4})\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d{1,4})\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d{1,4})\.mlp\.(fc[12])\.", r"vision_model.encoder.layers.\1.mlp.\2."),
)
_SAME = re.compile(
    r"^(text_encoder|text_decoder\.bert)\.(embeddings\.(word_embeddings|position_embeddings|LayerNorm)|encoder\.layer\.\d{1,4}"
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
_ADAPTER = re.compile(rf"^adapters\.(\d{{1,4}})\.({'|'.join(_MODULES)})\.(weight|bias)$")
_KEY_VALUE = re.compile(
    r"^(text_encoder|text_decoder\.bert)\.encoder\.video_(key|value)_adapter\.(down|up)_proj\.(weight|bias)$"
    r"|^(text_encoder|text_decoder\.bert)\.encoder\.video_(key|value)_adapter\.(scale)$"
)
_HEAD = re.compile(r"^(vision_proj|text_proj|itm_head)\.(weight|bias)$")
_TIME = "text_encoder.encoder.time_embed"
# The authors' files repeat a shared adapter under every layer that uses it.
_COPY = re.compile(rf"\.({'|'.join(_MODULES)})\.(weight|bias)$")
_MOMENTUM = re.compile(r"^(adapters_m|visual_encoder_m|text_encoder_m|vision_proj_m|text_proj_m)\b")


@dataclass
class ImportedAdapter:
    """The adapters in one of the authors' files, under this package's names.

    Args:
        config: inferred from the shapes of the tensors.
        state: state dict of an `AdapterSet`.
        momentum: its momentum copy under the same keys, if the file has one.
        unused: keys of the file that belong neither to the base nor to the adapters.
    """

    config: AdapterConfig
    state: dict[str, Tensor]
    momentum: dict[str, Tensor] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def base_name(key: str) -> str | None:
    """The name in transformers of a key of BLIP's own files; None if the base has no such tensor."""
    for pattern, replacement in _VISION:
        if re.search(pattern, key):
            return re.sub(pattern, replacement, key)
    if key.endswith("position_ids") or not _SAME.match(key) or "adapter" in key:
        return None
    return key


def import_base(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """BLIP's weights under transformers' names, with a copy for tied output embeddings.

    Args:
        state: tensors under BLIP's names; other keys are ignored.

    Raises:
        CheckpointError: a weight is not floating-point.
    """
    out = {name: _floats(key, tensor) for key, tensor in state.items() if (name := base_name(key)) is not None}
    embedding = out.get("text_decoder.bert.embeddings.word_embeddings.weight")
    head = "text_decoder.cls.predictions."
    if embedding is not None and f"{head}bias" in out:
        out.setdefault(f"{head}decoder.weight", embedding)
        out.setdefault(f"{head}decoder.bias", out[f"{head}bias"])
    return out


def _floats(key: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{key} holds {kind}, where a weight is float32, float16 or bfloat16; re-save it so")
    return tensor


def _count(state: dict[str, Tensor], pattern: str) -> int:
    """Number of layers, whose indices the pattern finds in the keys; they must be 0, 1, 2 and so on."""
    found = {int(m.group(1)) for key in state if (m := re.match(pattern, key))}
    missing = next((number for number in range(len(found)) if number not in found), None)
    if missing is not None:
        raise CheckpointError(f"it has a layer {max(found)} but no layer {missing}: not a BLIP, or a part of one")
    return len(found)


def _read_off(state: dict[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that every BLIP has, checked for its number of dimensions."""
    if key not in state:
        raise CheckpointError(f"not a BLIP checkpoint: it has no {key}")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(f"{key} has the shape {list(shape)}: BLIP's has {dimensions} dimensions, none of them 0")
    return shape


def _heads(kind: str, width: int, chosen: int) -> int:
    heads = chosen or max(1, width // 64)
    if heads < 0 or width % heads:
        raise CheckpointError(
            f"{heads} attention heads do not divide the {kind} width of {width}: convert it with --{kind}_heads"
        )
    return heads


def infer_config(state: dict[str, Tensor], vision_heads: int = 0, text_heads: int = 0) -> BlipConfig:
    """The config of one of BLIP's own checkpoints, inferred from the shapes of its tensors.

    Args:
        state: tensors under BLIP's names.
        vision_heads: number of attention heads of the visual encoder; 0 means width / 64, as in all of BLIP's files.
        text_heads: the same for the text models.

    Raises:
        CheckpointError: tensors that every BLIP has are missing or of another shape, or heads do not fit.
    """
    text = "text_encoder" if "text_encoder.embeddings.word_embeddings.weight" in state else "text_decoder.bert"
    width, _, patch, patch_wide = _read_off(state, "visual_encoder.patch_embed.proj.weight", 4)
    _, positions, _ = _read_off(state, "visual_encoder.pos_embed", 3)
    words, text_width = _read_off(state, f"{text}.embeddings.word_embeddings.weight", 2)
    text_positions, _ = _read_off(state, f"{text}.embeddings.position_embeddings.weight", 2)
    vision_mlp, _ = _read_off(state, "visual_encoder.blocks.0.mlp.fc1.weight", 2)
    text_mlp, _ = _read_off(state, f"{text}.encoder.layer.0.intermediate.dense.weight", 2)
    side = math.isqrt(positions - 1)
    if patch != patch_wide or side * side + 1 != positions or side == 0:
        raise CheckpointError(f"patches of {patch} x {patch_wide} and {positions} positions do not form a square")
    if words < 3:
        raise CheckpointError(f"it has {words} words: BLIP adds [DEC] and [ENC] to those of BERT")
    has_projection = "vision_proj.weight" in state
    projection = _read_off(state, "vision_proj.weight", 2)[0] if has_projection else 256
    end = 102 if words == BERT_WORDS + 2 else 3  # if the vocabulary is not BERT's, the tokenizer tells it later
    return BlipConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": vision_mlp,
            "num_hidden_layers": _count(state, r"^visual_encoder\.blocks\.(\d{1,15})\."),
            "num_attention_heads": _heads("vision", width, vision_heads),
            "image_size": side * patch,
            "patch_size": patch,
            "layer_norm_eps": 1e-6,
            "initializer_range": 0.02,
        },
        text_config={
            "vocab_size": words,
            "hidden_size": text_width,
            "encoder_hidden_size": width,
            "intermediate_size": text_mlp,
            "num_hidden_layers": _count(state, rf"^{re.escape(text)}\.encoder\.layer\.(\d{{1,15}})\."),
            "num_attention_heads": _heads("text", text_width, text_heads),
            "max_position_embeddings": text_positions,
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "label_smoothing": 0.1,
            "bos_token_id": words - 2,  # BLIP adds [DEC] and [ENC] after BERT's vocabulary, in this order
            "pad_token_id": 0,
            "eos_token_id": end,
            "sep_token_id": end,
            "is_decoder": True,
        },
        image_text_hidden_size=projection,
        projection_dim=projection,
    )


def adapter_name(key: str) -> str | None:
    """The name in an `AdapterSet` of a key of the authors' files; None if it is none of the adapters'."""
    if match := _ADAPTER.match(key):
        layer, module, parameter = match.groups()
        return f"layers.{layer}.{_MODULES[module]}.{parameter}"
    if match := _KEY_VALUE.match(key):
        stack, kind, part, parameter, stack_of_scale, kind_of_scale, scale = match.groups()
        prefix = "decoder_" if (stack or stack_of_scale) == "text_decoder.bert" else "encoder_"
        return f"{prefix}{kind_of_scale}.scale" if scale else f"{prefix}{kind}.{part}.{parameter}"
    if _HEAD.match(key):
        return f"heads.{key}"
    return "time" if key == _TIME else None


def import_adapter(state: dict[str, Tensor], frame_aware: bool = False) -> ImportedAdapter:
    """Adapters, key/value adapters, temporal embedding and heads of one of the authors' files.

    Args:
        state: tensors under the authors' names.
        frame_aware: whether the file was trained with frame-aware attention, which has no weights to tell it by.

    Raises:
        CheckpointError: the file has no `adapters.N`, or not in the shape that they have.
    """
    first, key_value = "adapters.0.down_proj.weight", "text_encoder.encoder.video_key_adapter.down_proj.weight"
    if first not in state:
        raise CheckpointError(f"not a checkpoint of the UniAdapter authors: it has no {first}")
    vision_layers = _count(state, r"^visual_encoder\.blocks\.(\d{1,15})\.")
    text_layers = _count(state, r"^text_(?:encoder|decoder\.bert)\.encoder\.layer\.(\d{1,15})\.")
    imported = ImportedAdapter(
        AdapterConfig(
            bottleneck=_read_off(state, first, 2)[0],
            key_value=_read_off(state, key_value, 2)[0] if key_value in state else 0,
            frame_aware=frame_aware,
            temporal_frames=_read_off(state, _TIME, 3)[1] if _TIME in state else 0,
            heads=any(_HEAD.match(k) for k in state),
            init="released",
        ),
        {},
    )
    for name, tensor in state.items():
        ours = adapter_name(name)
        if ours is not None and not _superfluous(ours, vision_layers, text_layers):
            imported.state[ours] = _floats(name, tensor)
        elif _MOMENTUM.match(name):
            online = adapter_name(re.sub(r"_m\b", "", name, count=1))
            if online is not None and not _superfluous(online, vision_layers, text_layers):
                imported.momentum[online] = tensor
        elif ours is not None or (base_name(name) is None and not _known(name, state)):
            imported.unused.append(name)
    return imported


def _superfluous(ours: str, vision_layers: int, text_layers: int) -> bool:
    """Whether a tensor is unused: for text beyond the last text layer, or for vision beyond the last visual one."""
    match = re.match(r"^layers\.(\d{1,4})\.(\w+)\.", ours)
    if not match:
        return False
    index, module = int(match.group(1)), match.group(2)
    if module in ("up_text", "up_cross", "norm_cross"):
        return index >= text_layers
    return module == "up_vision" and index >= vision_layers


def _known(name: str, state: dict[str, Tensor]) -> bool:
    """Whether a key is left out on purpose: a buffer, or another copy of a shared adapter."""
    if name.endswith("position_ids") or name in ("temp", "image_queue", "text_queue", "idx_queue", "ptr_queue"):
        return True
    match = _COPY.search(name)
    if match and not name.startswith("adapters"):
        suffix = f".{match.group(1)}.{match.group(2)}"
        return any(k.endswith(suffix) and torch.equal(state[k], state[name]) for k in state if _ADAPTER.match(k))
    return False
