"""The metric is the same: R@1/5/10 of the embedded scenes reranked by ours, in float32 and bfloat16, and the usual way.

    python benchmarks/same_metric.py

UniAdapter with matching is trained as in prove.py's `fused` (seed 0); then the 32 best of every query of the validation
split are reranked four times from the same contrastive similarities: ours in float32, ours in bfloat16, and by
transformers' own modules text by text and picture by picture; and once with features in bfloat16 too. Writes
benchmarks/results/same_metric.json.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import torch
from base_size import RESULTS, machine
from prove import fused
from torch import Tensor
from usual import Usual, attach

from uniadapter.app.demo import demo_config
from uniadapter.app.display import set_up_logging
from uniadapter.app.memory import keep_freed_memory
from uniadapter.checkpoints.loading import load_model
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.evaluation.recall import reranked_ranks, retrieval_metrics, top_candidates
from uniadapter.evaluation.rerank import rerank
from uniadapter.evaluation.retrieval import encode_texts
from uniadapter.evaluation.visual_store import encoded_visuals
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.sets import adapter_set
from uniadapter.runs.steps import load_split, train_split
from uniadapter.tasks.base import visuals_loader
from uniadapter.tasks.preparing import Prepared, prepare

K = 32
SHOWN = ("r@1", "r@5", "r@10")
logger = logging.getLogger("uniadapter.same_metric")


def recalls(split: RetrievalSplit, itc: Tensor, texts: tuple[Tensor, Tensor], visuals: tuple[Tensor, Tensor]) -> Any:
    """R@1/5/10 both ways of candidates and their scores, texts' and visuals'."""
    ranks = {
        "text_to_image": reranked_ranks(itc, *texts, torch.tensor(split.text_visual)),
        "image_to_text": reranked_ranks(itc.T, *visuals, split.visual_texts()),
    }
    return {way: {name: retrieval_metrics(found)[name] for name in SHOWN} for way, found in ranks.items()}


def encoded(prepared: Prepared, split: RetrievalSplit, config: Any, dtype: torch.dtype) -> tuple[Texts, Visuals]:
    """Features of a split."""
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with (
        evaluation_mode(prepared.model, autocast),
        encoded_visuals(
            prepared.model, visuals_loader(prepared, split, config), len(split.visuals), config.evaluate
        ) as v,
    ):
        return encode_texts(prepared.model, prepared.tokenizer, split.texts, config.model.max_tokens, 128), v


def main() -> None:
    """Train, rerank, write."""
    set_up_logging()
    keep_freed_memory()
    config = fused(demo_config("scenes", "uniadapter", 0))
    prepared = prepare(config)
    train_split(prepared, load_split(config, "train"), config)
    split, model, beta = load_split(config, "val"), prepared.model.eval(), config.evaluate.beta
    rows: list[dict[str, Any]] = []

    def add(peer: str, dtype: str, seconds: float, found: Any, scores: Tensor | None, note: str = "") -> None:
        row: dict[str, Any] = {"peer": peer, "dtype": dtype, "note": note, "seconds": round(seconds, 2), **found}
        if rows:
            first = rows[0]
            row["largest_recall_difference"] = max(
                abs(found[way][name] - first[way][name]) for way in found for name in SHOWN
            )
        if scores is not None:
            row["max_difference"] = float((scores - exact).abs().max())
        rows.append(row)
        logger.info("%s", json.dumps(row))

    exact = torch.empty(0)
    kept: tuple[Texts, Visuals, Tensor] | None = None
    for features in (torch.float32, torch.bfloat16):
        texts, visuals = encoded(prepared, split, config, features)
        itc = texts.feature.float() @ visuals.feature.float().T
        for dtype in (torch.float32, torch.bfloat16) if features == torch.float32 else (torch.bfloat16,):
            start = time.perf_counter()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                done = rerank(model, texts, visuals, itc, K, beta)
            spent = time.perf_counter() - start
            found = recalls(split, itc, (done.text_candidates, done.text_scores),
                            (done.visual_candidates, done.visual_scores))  # fmt: skip
            same = features == torch.float32
            exact = exact if len(exact) else done.text_scores
            add("ours", str(dtype).removeprefix("torch."), spent, found, done.text_scores if same else None,
                "" if same else "features in bfloat16 too")  # fmt: skip
        if features == torch.float32:
            kept = texts, visuals, itc
    assert kept is not None
    texts, visuals, itc = kept
    bare = load_model(config.model.base, config.task).eval()  # transformers' own layers, never re-typed
    attach(bare, adapter_set(model))
    start = time.perf_counter()
    by_text, by_visual = Usual(bare).rerank(texts.ids, texts.mask, visuals.tokens.flatten(1, 2), itc, K)
    spent = time.perf_counter() - start
    best, best_texts = top_candidates(itc, K), top_candidates(itc.T, K)
    scores = by_text.gather(1, best) + beta * itc.gather(1, best)
    back = by_visual.gather(1, best_texts) + beta * itc.T.gather(1, best_texts)
    add("usual", "float32", spent, recalls(split, itc, (best, scores), (best_texts, back)), scores)
    (RESULTS / "same_metric.json").write_text(
        json.dumps({"device": machine(), "k": K, "beta": beta, "split": "val", "rows": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
