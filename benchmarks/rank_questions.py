"""Ranking a list of answers for many questions at BLIP-base size: one question at a time, and as many as fit.

Random weights (time does not depend on them), float32, the answers of `rank.py`. Same work, same process; choices and
likelihoods are compared. Writes benchmarks/results/rank_questions.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import torch
from base_size import base_config
from rank import answers
from transformers import BlipForQuestionAnswering

from uniadapter.app.memory import keep_freed_memory
from uniadapter.compare.machine import processor
from uniadapter.evaluation.blocks import block_questions
from uniadapter.model.blip.ranking import rank_answers
from uniadapter.model.features import AnswerTree, Context

RESULTS = Path(__file__).parent / "results"
logger = logging.getLogger("rank_questions")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--answers", type=int, nargs="+", default=[13, 100])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_freed_memory()
    torch.manual_seed(0)
    model = BlipForQuestionAnswering(base_config(384)).eval().requires_grad_(False)
    model.config.text_config.label_smoothing = 0.1
    count = arguments.questions
    context = Context(torch.randn(count, 12, 768), torch.ones(count, 12, dtype=torch.long))
    rows = []
    for listed in arguments.answers:
        tree = AnswerTree.of(answers(listed))
        fitting = min(count, block_questions(model, float(tree.nodes.max() + 1 - listed)))
        seconds, found = {}, {}
        for step in (1, fitting):
            start = time.perf_counter()
            parts = [rank_answers(model, context.select(slice(at, at + step)), tree) for at in range(0, count, step)]
            seconds[step] = time.perf_counter() - start
            found[step] = [torch.cat(part) for part in zip(*parts, strict=True)]
        rows.append({
            "questions": count, "answers": listed, "at_once": fitting, "seconds_one_at_a_time": seconds[1],
            "seconds": seconds[fitting], "ratio": seconds[1] / seconds[fitting],
            "same_order": torch.equal(found[1][0], found[fitting][0]),
            "max_difference": float((found[1][1] - found[fitting][1]).abs().max()),
        })  # fmt: skip
        logger.info("%s", json.dumps(rows[-1]))
    written = {
        "work": "all answers of many questions", "dtype": "float32", "device": processor(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows,
    }  # fmt: skip
    (RESULTS / "rank_questions.json").write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
