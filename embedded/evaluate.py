"""Zero-shot retrieval while pre-training: validation material only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from embedded.canvas import draw, normalise

if TYPE_CHECKING:
    from transformers import BertTokenizerFast

    from embedded.backbone import PretrainingBlip
    from embedded.pretrain import Pictures


@torch.no_grad()
def embed_images(model: PretrainingBlip, pixels: Tensor) -> Tensor:
    """Unit vectors [N, 64]."""
    net = model.retrieval
    with torch.autocast("cpu", torch.bfloat16):
        parts = [net.vision_model(pixel_values=p).last_hidden_state[:, 0] for p in pixels.split(128)]
        out = net.vision_proj(torch.cat(parts))
    return F.normalize(out.float(), dim=-1)


@torch.no_grad()
def embed_texts(model: PretrainingBlip, tokenizer: BertTokenizerFast, texts: list[str]) -> Tensor:
    """Unit vectors [N, 64]."""
    net = model.retrieval
    out = tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="pt")
    ids, mask = out["input_ids"], out["attention_mask"]
    with torch.autocast("cpu", torch.bfloat16):
        parts = [
            net.text_encoder(input_ids=i, attention_mask=m).last_hidden_state[:, 0]
            for i, m in zip(ids.split(256), mask.split(256), strict=True)
        ]
        vectors = net.text_proj(torch.cat(parts))
    return F.normalize(vectors.float(), dim=-1)


def recall(sims: Tensor, truth: Tensor, k: int) -> float:
    """Share of rows whose true column is among the first ``k``, in percent."""
    ranks = (sims > sims.gather(1, truth.unsqueeze(1))).sum(1)
    return round(100 * (ranks < k).float().mean().item(), 1)


def singles(
    model: PretrainingBlip, tokenizer: BertTokenizerFast, pictures: Pictures, labels: list[str]
) -> dict[str, float]:
    """Single emoji of validation families in the style never trained on, by their labels."""
    model.eval()
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(len(pictures.concept))
    drawn = draw(pictures.large, pictures.small, rows, generator, jitter=False)
    images = embed_images(model, drawn.pixels)
    texts = embed_texts(model, tokenizer, [labels[c] for c in pictures.concept.tolist()])
    sims = images @ texts.t()
    model.train()
    return {
        "singles": len(rows),
        "i2t_r1": recall(sims, rows, 1),
        "i2t_r10": recall(sims, rows, 10),
        "t2i_r1": recall(sims.t(), rows, 1),
        "t2i_r10": recall(sims.t(), rows, 10),
    }


def scenes(model: PretrainingBlip, tokenizer: BertTokenizerFast, folder: Path, split: str) -> dict[str, float]:
    """Text-to-image recall on rendered scenes; nothing if they aren't there yet."""
    listing = folder / f"{split}.json"
    if not listing.exists():
        return {}
    model.eval()
    rows = json.loads(listing.read_text())
    arrays = [np.asarray(Image.open(folder / "images" / r["image"]).convert("RGB")) for r in rows]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    images = embed_images(model, normalise(pixels))
    texts = [(i, c) for i, r in enumerate(rows) for c in r["caption"]]
    vectors = embed_texts(model, tokenizer, [c for _, c in texts])
    truth = torch.tensor([i for i, _ in texts])
    sims = vectors @ images.t()
    model.train()
    return {
        "scenes": len(rows),
        "scenes_t2i_r1": recall(sims, truth, 1),
        "scenes_t2i_r10": recall(sims, truth, 10),
    }
