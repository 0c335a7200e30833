"""Matching pairs at the size of the released Q-Former: ours beside transformers' own, which takes pair by pair.

Random weights (time does not depend on them), float32, one thread. The visual encoder is left out: both get the same
states of its size, [257, 1408] a picture. Peer: transformers' Q-Former and matching head, called as by
`Blip2ForImageTextRetrieval`, 16 pairs a batch, texts padded to the longest. Same pairs, same process, taken in turns;
scores are compared. Writes benchmarks/results/blip2.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from transformers import Blip2Config, Blip2ForImageTextRetrieval

from uniadapter.compare.machine import processor
from uniadapter.model.encoding import begin_fusion, encode_text, match
from uniadapter.model.features import Texts, Visuals

RESULTS = Path(__file__).parent / "results"
BATCH = 16
logger = logging.getLogger("blip2")


def base() -> Blip2ForImageTextRetrieval:
    """A random BLIP-2 whose visual encoder is one thin layer of the right width."""
    config = Blip2Config(
        vision_config={"num_hidden_layers": 1, "intermediate_size": 64},
        qformer_config={"vocab_size": 30523, "use_qformer_text_input": True},
    )
    return Blip2ForImageTextRetrieval(config).eval().requires_grad_(False)


def pair_by_pair(model: Blip2ForImageTextRetrieval, texts: Texts, visuals: Visuals, pairs: Tensor) -> Tensor:
    """Matching logits [P, 2] as transformers' `forward` computes them behind the visual encoder."""
    parts = []
    for some in pairs.split(BATCH):
        queries = model.query_tokens.expand(len(some), -1, -1)
        mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), texts.mask[some[:, 0]]], dim=1)
        states = model.qformer(
            query_embeds=model.embeddings(input_ids=texts.ids[some[:, 0]], query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=mask,
            encoder_hidden_states=visuals.tokens[some[:, 1], 0],
        ).last_hidden_state
        parts.append(model.itm_head(states[:, : queries.shape[1]]).mean(1))
    return torch.cat(parts)


@torch.no_grad()
def measure(count: int, pictures: int, rounds: int) -> dict[str, float | int]:
    """Pairs a second of both, medians of so many rounds taken in turns."""
    generator = torch.Generator().manual_seed(0)
    original, model = base(), base()
    model.load_state_dict(original.state_dict())
    lengths = torch.randint(8, 17, (count,), generator=generator)
    ids = torch.randint(1000, 30000, (count, 16), generator=generator)
    texts = encode_text(model, ids, (torch.arange(16) < lengths[:, None]).long())
    tokens = torch.randn(pictures, 1, 257, 1408, generator=generator)
    visuals = Visuals(tokens, torch.zeros(pictures, 32, 256), torch.zeros(pictures, 1, 32, 256))
    pairs = torch.cartesian_prod(torch.arange(count), torch.arange(pictures))
    seconds: dict[str, list[float]] = {"transformers": [], "uniadapter": []}
    for _ in range(rounds):
        started = time.perf_counter()
        theirs = pair_by_pair(original, texts, visuals, pairs)
        seconds["transformers"].append(time.perf_counter() - started)
        started = time.perf_counter()
        ours = match(model, texts, visuals, pairs, begin_fusion(model, texts))
        seconds["uniadapter"].append(time.perf_counter() - started)
    rates = {f"{name}_pairs_per_second": round(len(pairs) / median(taken), 2) for name, taken in seconds.items()}
    return {"texts": count, "pictures": pictures, **rates, "largest_difference": float((theirs - ours).abs().max())}


def main() -> None:
    """Measure, print and write."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "processor": processor(),
        "torch": torch.__version__,
        **measure(options.texts, options.pictures, options.rounds),
    }
    (RESULTS / "blip2.json").write_text(json.dumps(found, indent=2) + "\n")
    logger.info("%s", json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
