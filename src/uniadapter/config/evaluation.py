"""The evaluation protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from uniadapter.config.checks import Count, check, require
from uniadapter.config.training import Precision, Size


@dataclass
class EvaluateConfig:
    """The evaluation protocol.

    Args:
        k: candidates per query that are reranked by the matching head, clipped to the gallery; 0 reranks none.
        beta: score = matching logit + beta * contrastive similarity (0 released, 1 in BLIP's video evaluation).
        dual_softmax: replace similarities by the product of their softmax over the gallery and over all queries of
            the test set. Transductive: a query's result then depends on the other queries, so such rows are marked.
        answers: answers to questions are chosen from a list ("rank"), of which the k whose first token is likeliest are
            scored in full, or written ("generate").
        beams: of the search, where texts are written.
        longest: tokens of a written caption with its prompt, at most (20 in BLIP).
        shortest: the same, at least (5 in BLIP).
        batch_size: pictures or texts encoded at once.
        block: pairs fused at once; 0 takes what the device has room for.
        features: where visual tokens are kept for reranking: "memory", "disk" (a file in the temporary
            folder) or "auto", which takes the disk where they would fill more than half of the free memory.
        features_bf16: keep them in bfloat16, half the size; scores then differ in the third digit.
        precision: as in training.
    """

    k: Count = 128
    beta: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    dual_softmax: bool = False
    answers: Literal["rank", "generate"] = "rank"
    beams: Annotated[int, Field(ge=1, le=100)] = 3
    longest: Annotated[int, Field(ge=1, le=8192)] = 20
    shortest: Annotated[int, Field(ge=0, le=8192)] = 5
    batch_size: Size = 64
    block: Count = 0
    features: Literal["auto", "memory", "disk"] = "auto"
    features_bf16: bool = False
    precision: Precision = "no"

    def __post_init__(self) -> None:
        check(self, "evaluate")
        fits = self.shortest <= self.longest
        require(fits, f"evaluate.shortest is {self.shortest}, more than evaluate.longest, {self.longest}")
