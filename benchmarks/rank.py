"""Ranking all 3,128 answers for a question at BLIP-base size: the tree beside the usual tiled way.

Random weights (time does not depend on them), float32. The answer list of VQAv2 cannot be had here, so the answers are
drawn with its shape as far as it is known: 3,128 distinct, most of one or two word pieces, few of more, many that begin
alike. Peers: transformers' decoder as it is, over a question's states tiled for every answer and answers padded to the
longest (one question has no padding, so the mask that transformers loses is not missed), and the same through SDPA with
the mask obeyed. Same work, same process; choices and likelihoods are compared. Writes benchmarks/results/rank.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from pathlib import Path
from statistics import median

import torch
from base_size import base_config
from torch import Tensor
from transformers import BlipForQuestionAnswering

from uniadapter.app.memory import keep_freed_memory
from uniadapter.compare.machine import processor
from uniadapter.model.blip.ranking import rank_answers
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.features import AnswerTree, Context

RESULTS = Path(__file__).parent / "results"
DEC, SEP = 30522, 102
logger = logging.getLogger("rank")


def answers(count: int, seed: int = 0) -> list[list[int]]:
    """Distinct answers of one to six word pieces; a third of those with several begin as another one does."""
    rng = random.Random(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        length = rng.choices([1, 2, 3, 4, 5, 6], [55, 28, 11, 4, 1, 1])[0]
        start = rng.choice(list(found))[:1] if found and length > 1 and rng.random() < 1 / 3 else ()
        found[(*start, *(rng.randrange(1000, 30000) for _ in range(length - len(start))))] = None
    return [[DEC, *answer, SEP] for answer in found]


@torch.no_grad()
def tiled(model: BlipForQuestionAnswering, context: Context, tree: AnswerTree, block: int) -> tuple[Tensor, Tensor]:
    """The usual way: states tiled for every answer, every answer at full padding, all logits."""
    mask = (torch.arange(tree.ids.shape[1]) < tree.lengths[:, None]).long()
    parts = []
    for start in range(0, len(tree), block):
        ids, seen = tree.ids[start : start + block], mask[start : start + block]
        states = context.states.expand(len(ids), -1, -1)
        hidden = model.text_decoder.bert(
            input_ids=ids, attention_mask=seen, encoder_hidden_states=states,
            encoder_attention_mask=context.mask.expand(len(ids), -1), is_decoder=True,
        ).last_hidden_state  # fmt: skip
        logits = model.text_decoder.cls(hidden)[:, :-1]
        labels = ids[:, 1:].masked_fill(seen[:, 1:] == 0, -100)
        loss = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", label_smoothing=model.config.text_config.label_smoothing
        )
        parts.append(loss.sum(1))
    nll = torch.cat(parts)[None]
    order = nll.argsort(dim=1, stable=True)
    return order, nll.gather(1, order)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=3128)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_freed_memory()
    torch.manual_seed(0)
    model = BlipForQuestionAnswering(base_config(384)).eval().requires_grad_(False)
    model.config.text_config.label_smoothing = 0.1
    tree = AnswerTree.of(answers(arguments.answers))
    context = Context(torch.randn(1, 12, 768), torch.ones(1, 12, dtype=torch.long))
    ways = {
        "usual": lambda: tiled(model, context, tree, arguments.block),  # before `adapter_store` changes the layers
        "sdpa": lambda: (adapter_store(model), tiled(model, context, tree, arguments.block))[1],
        "ours": lambda: rank_answers(model, context, tree),
    }
    seconds, found = {}, {}
    for name, way in ways.items():
        times = []
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            found[name] = way()
            times.append(time.perf_counter() - start)
        seconds[name] = median(times)
        logger.info("%s %.1f s", name, seconds[name])
    ours, usual = found["ours"], found["usual"]
    by_answer = [torch.empty_like(nll).scatter_(1, chosen, nll) for chosen, nll in (ours, usual)]
    written = {
        "work": "all answers of one question", "answers": len(tree), "longest": int(tree.lengths.max()),
        "tree_nodes": int(tree.nodes.max()) + 1, "tiled_tokens": tree.ids.numel(), "dtype": "float32",
        "device": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "seconds": seconds, "ratio_to_usual": seconds["usual"] / seconds["ours"],
        "ratio_to_sdpa": seconds["sdpa"] / seconds["ours"],
        "max_difference": float((by_answer[0] - by_answer[1]).abs().max()),
        "same_choice": bool(ours[0][0, 0] == usual[0][0, 0]),
        "same_first_ten": ours[0][0, :10].tolist() == usual[0][0, :10].tolist(),
    }  # fmt: skip
    logger.info("%s", json.dumps(written, indent=2))
    (RESULTS / "rank.json").write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
