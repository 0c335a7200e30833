"""The authors' numbers, reproduced through the public functions on weights that came in by `original`'s code."""

from __future__ import annotations

import pytest
import torch
from conftest import PARITY, ParityCase, parity_cases
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from uniadapter.adapter import KeyValueAdapter, UniAdapter
from uniadapter.adapters import add_adapter, add_momentum
from uniadapter.backbone import encode_text, encode_visual, frame_weights, fuse
from uniadapter.original import import_adapter, import_base, infer_config

RETRIEVAL = parity_cases("retrieval")


def close(actual: Tensor, expected: Tensor, what: str = "") -> None:
    """The tolerance for outputs and losses."""
    difference = (actual - expected).abs().max().item()
    assert difference <= 1e-5, f"{what}: {difference}"


def close_gradient(actual: Tensor, expected: Tensor, what: str) -> None:
    """The tolerance for gradients, per tensor."""
    difference = (actual - expected).abs().max().item()
    assert difference <= 1e-6 + 1e-4 * expected.abs().max().item(), f"{what}: {difference}"


def build(case: ParityCase) -> BlipForImageTextRetrieval:
    """The case's model: base and adapters from the authors' names, momentum set included."""
    weights, meta = case.group("weights"), case.meta
    config = infer_config(weights, vision_heads=meta["vision_heads"], text_heads=meta["num_heads"])
    config.text_config.bos_token_id = meta["dec_token_id"]
    config.text_config.enc_token_id = meta["enc_token_id"]
    assert config.vision_config.image_size == meta["image_size"]
    model = BlipForImageTextRetrieval(config).eval()
    missing, unexpected = model.load_state_dict(import_base(weights), strict=False)
    assert not missing and not unexpected
    imported = import_adapter(weights, frame_aware=meta["config"]["frame_aware_attention"])
    online = add_adapter(model, imported.config)
    online.load_state_dict(imported.state)
    momentum = add_momentum(model)
    _, unexpected = momentum.load_state_dict(imported.momentum, strict=False)
    assert not unexpected
    return model


def frames_of(case: ParityCase) -> Tensor:
    """The case's pixels as [B, T, 3, H, W]."""
    pixels = case["inputs.pixel_values"]
    return pixels if pixels.ndim == 5 else pixels[:, None]


def test_parity_adapter() -> None:
    case = ParityCase("adapter")
    weights, x = case.group("weights"), case["inputs.x"]
    ours = import_adapter({f"adapters.0.{k.removeprefix('uniadapter.')}": v for k, v in weights.items()
                           if k.startswith("uniadapter")} | {"text_encoder.encoder.layer.0.x": x,
                                                             "visual_encoder.blocks.0.x": x})  # fmt: skip
    rank, width = weights["uniadapter.down_proj.weight"].shape
    adapter = UniAdapter(width, rank)
    adapter.load_state_dict({k.removeprefix("layers.0."): v for k, v in ours.state.items()})
    close(adapter(x, "text"), case["outputs.text"], "text")
    close(adapter(x, "vision"), case["outputs.visual"], "vision")
    close(adapter(x, "cross"), case["outputs.multimodal"], "cross")
    rank = weights["adapter_lora.down_proj.weight"].shape[0]
    key = KeyValueAdapter(width, rank, width)
    key.load_state_dict({k.removeprefix("adapter_lora.").replace("_proj", ""): v for k, v in weights.items()
                         if k.startswith("adapter_lora")})  # fmt: skip
    close(key(x), case["outputs.adapter_lora"], "key/value")


@pytest.mark.parametrize("name", RETRIEVAL)
def test_parity_features_and_fusion(name: str) -> None:
    case = ParityCase(name)
    model = build(case)
    with torch.no_grad():
        visuals = encode_visual(model, frames_of(case))
        texts = encode_text(model, case["inputs.input_ids"], case["inputs.attention_mask"])
        close(visuals.tokens, case["outputs.visual_last_hidden_state"], "visual states")
        close(visuals.feature, case["outputs.visual_feature"], "visual feature")
        close(visuals.frames, case["outputs.frame_features"], "frame features")
        length = texts.ids.shape[1]
        real = texts.mask.bool()
        close(texts.states[real], case["outputs.text_last_hidden_state"][:, :length][real], "text states")
        close(texts.feature, case["outputs.text_feature"], "text feature")
        if "outputs.frame_similarity" in case:
            expected = torch.softmax(case["outputs.frame_similarity"] / 4, -1) * visuals.tokens.shape[1]
            close(frame_weights(texts.feature, visuals.frames), expected, "frame weights")
        pairs = torch.cartesian_prod(torch.arange(len(texts)), torch.arange(len(visuals)))
        states = fuse(model, texts, visuals, pairs).unflatten(0, (len(texts), len(visuals)))
        expected = case["outputs.multimodal_last_hidden_state"][:, :, :length]
        keep = real[:, None].expand(-1, len(visuals), -1)
        close(states[keep], expected[keep], "fused states")
        logits = model.itm_head(fuse(model, texts, visuals, pairs, read="first"))
        close(logits.unflatten(0, (len(texts), len(visuals))), case["outputs.itm_logits"], "matching logits")


def test_parity_folder_has_the_expected_cases() -> None:
    assert (PARITY / "adapter.safetensors").is_file()
    assert any(name.startswith("retrieval_image") for name in RETRIEVAL)
