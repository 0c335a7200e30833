"""The base's visual encoder before it knows anything: BLIP's, small, with a start that saves it the first hour."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipVisionConfig, BlipVisionModel

from world.pictures.grounds import SIZE

WIDTH, LAYERS, HEADS = 192, 6, 3
PATCH = 16  # side of a patch in pixels


def build_vision(patch: int) -> BlipVisionModel:
    """A fresh visual encoder for 96 px pictures."""
    config = BlipVisionConfig(
        image_size=SIZE, patch_size=patch, num_hidden_layers=LAYERS, hidden_size=WIDTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, layer_norm_eps=1e-6, initializer_range=0.02, projection_dim=64,
    )  # fmt: skip
    model = BlipVisionModel(config)
    nn.init.trunc_normal_(model.embeddings.class_embedding, std=0.02)
    for name, parameter in model.encoder.named_parameters():
        if name.endswith(("self_attn.projection.weight", "mlp.fc2.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS))
    return model


@torch.no_grad()
def prime(model: BlipVisionModel, pixels: Tensor) -> None:
    """Start the patch embedding as a damped whitening of patches and the positions as two-dimensional sines.

    Args:
        model: from `build_vision`.
        pixels: normalised canvases [B, 3, 96, 96] to take the patches' statistics from.
    """
    embeddings, patch = model.embeddings, int(model.config.patch_size)  # type: ignore[arg-type]
    patches = F.unfold(pixels, patch, stride=patch).transpose(1, 2).reshape(-1, 3 * patch * patch)
    patches = patches[torch.randperm(len(patches))[:40_000]]
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).t() @ (patches - mean) / len(patches))
    kept = min(WIDTH, len(values))
    values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
    whiten = (vectors / (values + 0.02 * values[:20].mean()).sqrt()).t()
    weight = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0][:, :kept] @ whiten
    embeddings.patch_embedding.weight.copy_(weight.view(WIDTH, 3, patch, patch))
    embeddings.patch_embedding.bias.copy_(-(weight @ mean))
    side = SIZE // patch
    rates = torch.exp(torch.arange(WIDTH // 4) * (-math.log(30.0) / (WIDTH // 4))) * 1.5
    waves = torch.arange(side).float()[:, None] * rates
    place = torch.cat([waves.sin(), waves.cos()], 1)
    grid = torch.cat([place[:, None].expand(side, side, -1), place[None].expand(side, side, -1)], -1)
    embeddings.position_embedding[0, 1:] = 0.5 * grid.reshape(side * side, WIDTH)


def encode(model: BlipVisionModel, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
    """States after the last norm [B, 1 + N, 192]; with `keep` [B, K], of the class token and these patches alone."""
    states = model.embeddings(pixels)
    if keep is not None:
        rows = keep.unsqueeze(-1).expand(-1, -1, states.shape[-1])
        states = torch.cat([states[:, :1], states[:, 1:].gather(1, rows)], 1)
    for layer in model.encoder.layers:
        out = layer(states)
        states = out[0] if isinstance(out, tuple) else out
    return model.post_layernorm(states)
