"""Reranking at BLIP-base size: seconds a pair, ours beside the usual way and a strong one, scores compared.

    python benchmarks/rerank.py [--works image video] [--visuals 64]

Random weights (time does not depend on them), caption lengths as COCO's. Ours reranks whole galleries; between its
blocks the peers score blocks of the same pairs, text by text and visual by visual, with candidates in both directions
as their scripts have them; their time is the median a pair, extrapolated to all pairs they would score. Our gallery is
read from a file (`evaluate.features: disk`), theirs is in memory, as their scripts keep it. Peaks of memory above the
loaded model are read in processes of their own. Writes benchmarks/results/rerank.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from base_size import (
    ADAPTERS,
    RESULTS,
    add_peaks,
    forget_peak,
    our_model,
    peak,
    replace_rows,
    resident,
    strong_model,
    texts,
    usual_model,
)
from torch import Tensor

from uniadapter.app.memory import keep_freed_memory
from uniadapter.config import AdapterConfig
from uniadapter.evaluation.recall import top_candidates
from uniadapter.evaluation.rerank import rerank
from uniadapter.evaluation.visual_store import TokensOnDisk
from uniadapter.model.encoding import encode_text
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.precision import round_frozen

BLOCKS = 6  # of each peer, between ours
PAIRS = 32  # of a block, at least
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
logger = logging.getLogger("rerank")


@dataclass(frozen=True)
class Work:
    """What is reranked.

    Args:
        name: as in the results.
        size: side of a picture or frame in pixels.
        frames: of a visual.
        captions: of a visual.
        candidates: a query; 0 is all.
    """

    name: str
    size: int
    frames: int
    captions: int
    candidates: tuple[int, ...]

    @property
    def adapters(self) -> AdapterConfig:
        """Videos are weighed frame by frame."""
        return replace(ADAPTERS, frame_aware=self.frames > 1)

    @property
    def patches(self) -> int:
        """Tokens of a frame."""
        return (self.size // 16) ** 2 + 1


WORKS = {
    "image": Work("image 384 px, rerank", 384, 1, 5, (32, 0)),
    "video": Work("video 8 x 224 px, frame-aware, rerank", 224, 8, 1, (16, 0)),
}


def tokens_of(work: Work, row: int) -> Tensor:
    """Random tokens of one visual [T, N, d]: what a pair costs does not depend on them."""
    return torch.randn(work.frames, work.patches, 768, generator=torch.Generator().manual_seed(1000 + row))


def visuals_of(work: Work, count: int, file: Path | None = None) -> Visuals:
    """A gallery, its tokens in memory or, one after the other, in a file."""
    shape = (count, work.frames, work.patches, 768)
    tokens = torch.empty(shape) if file is None else TokensOnDisk(file, shape, torch.float32)
    for row in range(count):
        tokens[row : row + 1] = tokens_of(work, row)[None]
    generator = torch.Generator().manual_seed(7)
    frames = torch.nn.functional.normalize(torch.randn(count, work.frames, 256, generator=generator), dim=-1)
    return Visuals(tokens, torch.nn.functional.normalize(frames.mean(1), dim=-1), frames)  # type: ignore[arg-type]


class Peer:
    """A peer with the same weights, which scores pairs as its scripts do.

    Args:
        work: what is reranked.
        strong: SDPA and padding cut to the batch.
        dtype: of autocast.
    """

    def __init__(self, work: Work, strong: bool, dtype: torch.dtype) -> None:
        self.work, self.dtype = work, dtype
        self.usual = (strong_model if strong else usual_model)(None, work.size, work.adapters)
        self.seconds: list[float] = []

    @torch.no_grad()
    def score(self, encoded: Texts, ids: Tensor, mask: Tensor, visuals: Visuals, pairs: Tensor) -> Tensor:
        """Matching logits of pairs [P, 2], one visual's states repeated for each."""
        text, visual = pairs.unbind(1)
        if self.usual.frames is not None:
            self.usual.frames.weigh(encoded.feature[text], visuals.frames[visual], self.work.patches)
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            return self.usual.match(ids[text], mask[text], visuals.tokens[visual].flatten(1, 2))[:, 1].float()


def blocks_of(itc: Tensor, k: int) -> list[Tensor]:
    """Pairs of the peers' blocks, as many of texts as of visuals: queries with their candidates."""
    generator = torch.Generator().manual_seed(11)
    found = []
    for number in range(BLOCKS):
        sims = itc if number % 2 == 0 else itc.T
        best = top_candidates(sims, min(k or sims.shape[1], 64))  # the usual way scores a query at a time
        queries = torch.randperm(len(sims), generator=generator)[: -(-PAIRS // best.shape[1])]
        pairs = torch.stack([queries.repeat_interleave(best.shape[1]), best[queries].flatten()], dim=1)
        found.append(pairs if number % 2 == 0 else pairs.flip(1))
    return found


def compare(work: Work, k: int, dtype: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """One gallery through ours, the peers between its blocks."""
    keep_freed_memory()
    model = our_model(work.size, work.adapters)
    peers = {"usual": Peer(work, False, torch.float32), "strong": Peer(work, True, DTYPES[dtype])}
    visuals, on_disk = visuals_of(work, count), visuals_of(work, count, folder / "tokens")
    ids, mask = texts(count * work.captions)
    with torch.no_grad():
        encoded = encode_text(model, ids, mask)
    if dtype != "float32":
        round_frozen(model, DTYPES[dtype])
    itc = encoded.feature @ visuals.feature.T
    blocks = blocks_of(itc, k)
    theirs: list[dict[str, Tensor]] = []
    clock = {"ours": 0.0, "since": 0.0}

    def between(done: int, total: int) -> None:
        clock["ours"] += time.perf_counter() - clock["since"]
        while len(theirs) < BLOCKS and done >= total * (len(theirs) + 0.5) / BLOCKS:
            pairs, scores = blocks[len(theirs)], {}
            for name, peer in peers.items():
                start = time.perf_counter()
                scores[name] = peer.score(encoded, ids, mask, visuals, pairs)
                peer.seconds.append((time.perf_counter() - start) / len(pairs))
            theirs.append(scores)
        clock["since"] = time.perf_counter()

    clock["since"] = time.perf_counter()
    with torch.autocast("cpu", DTYPES[dtype], enabled=dtype != "float32"):
        found = rerank(model, encoded, on_disk, itc, k or itc.numel(), progress=between)
    empty = torch.full_like(itc, torch.nan)
    ours = empty.scatter(1, found.text_candidates, found.text_scores)
    ours = torch.where(ours.isnan(), empty.T.scatter(1, found.visual_candidates, found.visual_scores).T, ours)
    directions = found.text_candidates.numel() + found.visual_candidates.numel()  # the peers score both apart
    rows = []
    for name, peer in peers.items():
        apart = [(ours[tuple(p.T)] - s[name]).abs().max() for p, s in zip(blocks, theirs, strict=True)]
        total = median(peer.seconds) * directions
        rows.append({
            "work": work.name, "candidates": k or "all", "peer": name, "dtype": dtype,
            "peer_dtype": "float32" if name == "usual" else dtype, "ratio": round(total / clock["ours"], 2),
            "max_difference": float(max(apart)), "pairs": found.pairs, "peer_pairs": directions,
            "seconds_a_pair": clock["ours"] / found.pairs, "peer_seconds_a_pair": median(peer.seconds),
            "features": "disk", "peer_blocks": BLOCKS, "peer_time_extrapolated": True, "torch": torch.__version__,
        })  # fmt: skip
        logger.info("%s", json.dumps(rows[-1]))
    return rows


@torch.no_grad()
def peak_of(work: Work, k: int, dtype: str, who: str, count: int, folder: Path) -> float:
    """Peak above the loaded model in MB; run in a process of its own."""
    peer = None if who == "ours" else Peer(work, who == "strong", DTYPES[dtype] if who == "strong" else torch.float32)
    model = our_model(work.size, work.adapters) if peer is None else peer.usual.model
    if peer is None and dtype != "float32":
        round_frozen(model, DTYPES[dtype])
    keep_freed_memory()  # only now, or what rounding freed would count as room
    forget_peak()
    loaded = resident()
    visuals = visuals_of(work, count, folder / "tokens" if peer is None else None)
    ids, mask = texts(count * work.captions)
    encoded = Texts(
        ids, mask, torch.empty(len(ids), 0), torch.nn.functional.normalize(torch.randn(len(ids), 256), dim=-1)
    )
    itc = encoded.feature @ visuals.feature.T
    if peer is not None:
        for pairs in blocks_of(itc, k)[:2]:
            peer.score(encoded, ids, mask, visuals, pairs)
        return peak() - loaded
    first = Visuals(visuals.tokens, visuals.feature[:4], visuals.frames[:4])  # four of the gallery will do
    with torch.autocast("cpu", DTYPES[dtype], enabled=dtype != "float32"):
        rerank(model, encoded, first, itc[:, :4], k or itc.numel())
    return peak() - loaded


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=tuple(WORKS), default=list(WORKS))
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--candidates", nargs="+", choices=("some", "all"), default=["some", "all"])
    parser.add_argument("--visuals", type=int, default=64)
    parser.add_argument("--peaks", type=int, default=3, help="processes that a peak is the median of")
    parser.add_argument("--out", type=Path, default=RESULTS / "rerank.json")
    parser.add_argument("--peak", nargs=4, help="work, candidates, dtype and who: one peak, by this script itself")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if asked.peak:
        work, k, dtype, who = asked.peak
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(str(peak_of(WORKS[work], int(k), dtype, who, asked.visuals, Path(folder))))
        return
    todo = [
        (name, k, dtype)
        for name in asked.works
        for k in WORKS[name].candidates
        for dtype in asked.dtypes
        if ("some" if k else "all") in asked.candidates
    ]
    for name, k, dtype in todo:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(WORKS[name], k, dtype, asked.visuals, Path(folder))
        one = ["--visuals", str(asked.visuals), "--peak", name, str(k), dtype]
        add_peaks(found, __file__, ("ours", "usual", "strong"), one, asked.peaks)
        replace_rows(asked.out, found)


if __name__ == "__main__":
    main()
