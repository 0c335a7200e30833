"""One training step and one evaluation at BLIP-base size, 384 px, ours beside the usual way and a strong one.

Random weights (time does not depend on them), float32. Each measurement runs in a process of its own, so
that its peak memory is its own; outputs are written out and compared. Writes benchmarks/results/base_size.json.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import BlipConfig, BlipForImageTextRetrieval
from usual import LONGEST, Frames, Usual, attach, attach_strong, training_loss

from uniadapter.app.memory import keep_freed_memory
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.compare.machine import processor
from uniadapter.config import AdapterConfig, ModelConfig, ObjectiveConfig
from uniadapter.evaluation.rerank import rerank
from uniadapter.model.dispatch import backbone
from uniadapter.model.encoding import encode_text, encode_visual
from uniadapter.model.features import Visuals
from uniadapter.model.sets import adapter_set
from uniadapter.model.tokens import TokenBatch
from uniadapter.objectives.contrastive import FeatureQueue
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo

RESULTS = Path(__file__).parent / "results"
ADAPTERS = AdapterConfig(bottleneck=128, key_value=64)
logger = logging.getLogger("base_size")


def base_config(image_size: int) -> BlipConfig:
    """BLIP-base: ViT-B/16 and BERT-base with cross-attention."""
    return BlipConfig(
        vision_config={
            "image_size": image_size, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "layer_norm_eps": 1e-6, "initializer_range": 0.02,
        },
        text_config={
            "vocab_size": 30524, "hidden_size": 768, "encoder_hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512,
            "bos_token_id": 30522, "pad_token_id": 0, "eos_token_id": 102, "sep_token_id": 102, "is_decoder": True,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        },
        image_text_hidden_size=256,
    )  # fmt: skip


def texts(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask [S, 35], lengths as COCO's captions (about 10.5 words, 12.5 tokens with both ends)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (12.5 + 2.4 * torch.randn(count, generator=generator)).round().long().clamp(8, LONGEST)
    ids = torch.randint(1000, 30000, (count, LONGEST), generator=generator)
    mask = (torch.arange(LONGEST) < lengths[:, None]).long()
    ids[:, 0] = 101
    return ids * mask, mask


def trained_set(model: BlipForImageTextRetrieval, config: AdapterConfig = ADAPTERS) -> dict[str, Tensor]:
    """Weights of a set away from its start, the same in every process."""
    torch.manual_seed(2)
    built = backbone(model).new_set(config)
    generator = torch.Generator().manual_seed(1)
    return {n: p + 0.02 * torch.randn(p.shape, generator=generator) for n, p in built.state_dict().items()}


def load(image_size: int = 384) -> BlipForImageTextRetrieval:
    """The same random base in every process."""
    torch.manual_seed(0)
    return BlipForImageTextRetrieval(base_config(image_size)).eval().requires_grad_(False)


def our_model(image_size: int = 384, config: AdapterConfig = ADAPTERS) -> BlipForImageTextRetrieval:
    """Ours, with the trained set."""
    model = load(image_size)
    add_adapter(model, config).load_state_dict(trained_set(model, config))
    return model


def usual_model(
    state: dict[str, Tensor] | None = None, image_size: int = 384, config: AdapterConfig = ADAPTERS
) -> Usual:
    """The usual peer, with its adapters hooked on."""
    model, frames = load(image_size), Frames() if config.frame_aware else None
    built = backbone(model).new_set(config)
    built.load_state_dict(state or trained_set(model, config))
    attach(model, built, frames)
    model.add_module("adapters", built)  # so that it has an optimiser's and a momentum copy's parameters
    built.requires_grad_(True)
    return Usual(model, frames=frames)


def strong_model(
    state: dict[str, Tensor] | None = None, image_size: int = 384, config: AdapterConfig = ADAPTERS
) -> Usual:
    """The strong peer: the same steps over layers that use SDPA, padding cut to the batch."""
    model, frames = load(image_size), Frames() if config.frame_aware else None
    add_adapter(model, config).load_state_dict(state or trained_set(model, config))
    if frames is not None:
        attach_strong(model, frames)
    return Usual(model, cut=True, frames=frames)


def adapters_of(peer: Usual) -> torch.nn.Module:
    """The peer's adapters, wherever they hang."""
    return peer.model.adapters if hasattr(peer.model, "adapters") else adapter_set(peer.model)


def resident() -> float:
    """Resident memory in MB."""
    return psutil.Process().memory_info().rss / 2**20


def forget_peak() -> None:
    """Give back what loading freed and let `peak` count from now on, so that loading is not in it."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux, not glibc: then it is
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Largest resident memory so far, in MB; `getrusage` would count what the parent had when it forked."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


def add_peaks(
    rows: list[dict[str, Any]], script: str, who: Sequence[str], asked: Sequence[str], times: int = 1
) -> None:
    """Run a script's `--peak … WHO` for ours and each peer, in processes of their own; the medians go into the rows."""

    def once(name: str) -> float:
        done = subprocess.run([sys.executable, script, *asked, name], check=True, capture_output=True, text=True)
        return float(done.stdout)

    peaks = {name: median(once(name) for _ in range(times)) for name in who}
    for row in rows:
        row["memory_ratio"] = round(peaks["ours"] / peaks[row["peer"]], 3)
        row["peak_mb"], row["peer_peak_mb"] = round(peaks["ours"]), round(peaks[row["peer"]])
        row["device"] = machine()


def replace_rows(file: Path, found: list[dict[str, Any]]) -> None:
    """Put rows into a result's list, in the place of those about the same work, candidates, peer and dtype."""
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    key = ("work", "candidates", "peer", "dtype")
    new = {tuple(row[name] for name in key) for row in found}
    rows = [row for row in rows if tuple(row[name] for name in key) not in new] + found
    file.write_text(json.dumps(rows, indent=2) + "\n")


def machine() -> str:
    """What ran it."""
    return f"{processor()}, {torch.get_num_threads()} threads"


def pixels(count: int) -> Tensor:
    """Random pictures [B, 3, 384, 384]."""
    return torch.randn(count, 3, 384, 384, generator=torch.Generator().manual_seed(3))


def train_ours(batch: int, repeats: int) -> dict[str, Any]:
    """Training steps through the task."""
    model = our_model()
    task = RetrievalLoss(model, None, ModelConfig(), ObjectiveConfig(queue_size=1024, alpha=0.4))
    task.training = True  # moves queue and momentum; there is no dropout to turn on
    loaded = resident()
    optimizer = torch.optim.AdamW(adapter_set(model).parameters(), lr=0.0)
    ids, mask = texts(batch)
    own, times, out = torch.arange(batch), [], {}
    for _ in range(repeats):
        start = time.perf_counter()
        losses = task.losses(pixels(batch)[:, None], TokenBatch(ids, mask), own, own, StepInfo(0, 1, 0, 1))
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
        out = out or {"itc": losses["contrastive"].detach(), "itm": losses["matching"].detach()}
    return {"seconds": times, "peak_mb": peak() - loaded, "outputs": out}


def train_usual(batch: int, repeats: int, build: Callable[..., Usual] = usual_model) -> dict[str, Any]:
    """Training steps the usual way."""
    online = build()
    momentum = build(adapters_of(online).state_dict())
    momentum.model.requires_grad_(False)
    queue = FeatureQueue(1024, 256)
    loaded = resident() - sum(p.numel() for p in momentum.model.parameters()) * 4 / 2**20  # a copy is memory it needs
    optimizer = torch.optim.AdamW(adapters_of(online).parameters(), lr=0.0)
    ids, mask = texts(batch)
    times, out = [], {}
    for _ in range(repeats):
        start = time.perf_counter()
        itc, itm = training_loss(online, momentum, queue, pixels(batch)[:, None], ids, mask, 0.4)
        (itc + itm).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
        out = out or {"itc": itc.detach(), "itm": itm.detach()}
    return {"seconds": times, "peak_mb": peak() - loaded, "outputs": out}


@torch.no_grad()
def evaluate_ours(images: int, captions: int, k: int) -> dict[str, Any]:
    """Features and rerank of both directions."""
    model = our_model()
    loaded = resident()
    ids, mask = texts(images * captions)
    start = time.perf_counter()
    visuals = Visuals.concatenate([encode_visual(model, p[:, None]) for p in pixels(images).split(4)])
    encoded = encode_text(model, ids, mask)
    itc = encoded.feature @ visuals.feature.T
    found = rerank(model, encoded, visuals, itc, k, block=64)
    seconds = time.perf_counter() - start
    empty = torch.full_like(itc, torch.nan)
    outputs = {
        "text": empty.scatter(1, found.text_candidates, found.text_scores),
        "visual": empty.T.scatter(1, found.visual_candidates, found.visual_scores),
    }
    return {"seconds": [seconds], "peak_mb": peak() - loaded, "outputs": outputs, "pairs": found.pairs}


@torch.no_grad()
def evaluate_usual(images: int, captions: int, k: int, build: Callable[..., Usual] = usual_model) -> dict[str, Any]:
    """The same, text by text and picture by picture."""
    online = build()
    loaded = resident()
    ids, mask = texts(images * captions)
    start = time.perf_counter()
    parts = [online.visual(p) for p in pixels(images).split(4)]
    states, visual = (torch.cat(p) for p in zip(*parts, strict=True))
    itc = online.text(ids, mask) @ visual.T
    by_text, by_visual = online.rerank(ids, mask, states, itc, k)
    seconds = time.perf_counter() - start
    pairs = int(by_text.isfinite().sum() + by_visual.isfinite().sum())
    outputs = {"text": by_text, "visual": by_visual}
    return {"seconds": [seconds], "peak_mb": peak() - loaded, "outputs": outputs, "pairs": pairs}


def child(arguments: argparse.Namespace) -> None:
    """One measurement; its outputs go to a file."""
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    if arguments.work == "train":
        strong = partial(train_usual, build=strong_model)
        run = {"ours": train_ours, "usual": train_usual, "strong": strong}[arguments.peer]
        result = run(arguments.batch, arguments.repeats)
    else:
        strong = partial(evaluate_usual, build=strong_model)
        run = {"ours": evaluate_ours, "usual": evaluate_usual, "strong": strong}[arguments.peer]
        result = run(arguments.images, arguments.captions, arguments.k)
    torch.save(result, arguments.out)


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All peers on both works, each in its own process."""
    rows = []
    for work in ("train", "evaluate"):
        results = {}
        for peer in ("ours", "usual", "strong"):
            with tempfile.NamedTemporaryFile(suffix=".pt") as file:
                command = [sys.executable, __file__, "--work", work, "--peer", peer, "--out", file.name]
                for name in ("batch", "repeats", "images", "captions", "k", "threads"):
                    command += [f"--{name}", str(getattr(arguments, name))]
                subprocess.run(command, check=True)
                results[peer] = torch.load(file.name, weights_only=True)
        row: dict[str, Any] = {"work": f"image 384 px, {work}", "dtype": "float32"}
        ours = results["ours"]
        for peer, result in results.items():
            row[peer] = {
                "seconds": median(result["seconds"]),
                "peak_mb": result["peak_mb"],
                "pairs": result.get("pairs"),
            }
            if peer != "ours":
                row[peer]["ratio"] = median(result["seconds"]) / median(ours["seconds"])
                row[peer]["memory_ratio"] = ours["peak_mb"] / result["peak_mb"]
                row[peer] |= apart(ours["outputs"], result["outputs"])
        logger.info("%s", json.dumps(row))
        rows.append(row)
    return rows


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference of the outputs, and how many were compared.

    Candidates at the edge of the k best may differ where similarities agree to rounding: then one side has none.
    """
    values = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    common = values[values.isfinite()]
    return {"max_difference": float(common.max()), "values_compared": len(common)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", help="one measurement, by this script itself")
    parser.add_argument("--peer")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.work:
        child(arguments)
        return
    settings = {k: v for k, v in vars(arguments).items() if k not in ("work", "peer", "out")}
    machine = {"device": processor(), "torch": torch.__version__}
    RESULTS.mkdir(exist_ok=True)
    written = {"settings": settings, **machine, "rows": compare(arguments)}
    (RESULTS / "base_size.json").write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
