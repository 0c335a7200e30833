"""Zero-shot retrieval while pre-training: validation material only."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uniadapter.evaluation.retrieval import encode_texts
from uniadapter.model.encoding import encode_visual, match
from uniadapter.model.features import Visuals
from world.canvas import STILL, alone, draw, normalise

if TYPE_CHECKING:
    from transformers import BertTokenizerFast

    from world.backbone import PretrainingBlip
    from world.styles import Pictures

CANDIDATES = 10


def encode_images(model: PretrainingBlip, pixels: Tensor) -> Visuals:
    """Canvases [N, 3, 96, 96] as visuals of one frame."""
    parts = [encode_visual(model.retrieval, p.unsqueeze(1)) for p in pixels.split(128)]
    return Visuals.concatenate(parts)


def recall(sims: Tensor, truth: Tensor, k: int) -> float:
    """Share of rows whose true column is among the first ``k``, in percent."""
    ranks = (sims > sims.gather(1, truth.unsqueeze(1))).sum(1)
    return round(100 * (ranks < k).float().mean().item(), 1)


@torch.no_grad()
def singles(
    model: PretrainingBlip, tokenizer: BertTokenizerFast, pictures: Pictures, labels: list[str]
) -> dict[str, float]:
    """Single emoji of validation families in the style never trained on, by their labels."""
    model.eval()
    generator, rng = torch.Generator().manual_seed(1), random.Random(1)
    rows = torch.arange(len(pictures.concept))
    canvases = [alone(i, 1.0, rng) for i in rows.tolist()]
    drawn = draw(pictures.large, pictures.small, canvases, generator, STILL)
    images = encode_images(model, drawn.pixels)
    texts = encode_texts(model.retrieval, tokenizer, [labels[c] for c in pictures.concept.tolist()], 48, 256)
    sims = images.feature @ texts.feature.t()
    model.train()
    return {
        "singles": len(rows),
        "i2t_r1": recall(sims, rows, 1),
        "i2t_r10": recall(sims, rows, 10),
        "t2i_r1": recall(sims.t(), rows, 1),
        "t2i_r10": recall(sims.t(), rows, 10),
    }


@torch.no_grad()
def scenes(model: PretrainingBlip, tokenizer: BertTokenizerFast, folder: Path, split: str) -> dict[str, float]:
    """Text-to-image recall on rendered scenes, before and after reranking; nothing if they aren't there yet."""
    listing = folder / f"{split}.json"
    if not listing.exists():
        return {}
    model.eval()
    rows = json.loads(listing.read_text())
    arrays = [np.asarray(Image.open(folder / r["image"]).convert("RGB")) for r in rows]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    images = encode_images(model, normalise(pixels))
    captions = [(i, c) for i, r in enumerate(rows) for c in r["caption"]]
    texts = encode_texts(model.retrieval, tokenizer, [c for _, c in captions], 48, 256)
    truth = torch.tensor([i for i, _ in captions])
    sims = texts.feature @ images.feature.t()
    best = sims.topk(CANDIDATES).indices
    pairs = torch.stack([torch.arange(len(best)).repeat_interleave(CANDIDATES), best.flatten()], 1)
    logits = torch.cat([match(model.retrieval, texts, images, p)[:, 1] for p in pairs.split(2048)])
    reranked = sims.clone().scatter_(1, best, 1000 + logits.view_as(best))
    model.train()
    return {
        "scenes": len(rows),
        "scenes_t2i_r1": recall(sims, truth, 1),
        "scenes_t2i_r10": recall(sims, truth, 10),
        "scenes_t2i_r1_reranked": recall(reranked, truth, 1),
    }
