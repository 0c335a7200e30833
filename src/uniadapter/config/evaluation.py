"""Settings of the evaluation protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from uniadapter.config.checks import Count, require, validate_fields
from uniadapter.config.training import Precision, Size


@dataclass
class EvaluateConfig:
    """The evaluation protocol.

    Args:
        k: candidates per query that the matching head reranks, at most the gallery; 0 turns reranking off.
        beta: score = matching logit + beta * contrastive similarity (0 released, 1 in BLIP's video evaluation).
        dual_softmax: replace similarities by the product of their softmax over the gallery and over all queries of
            the test set. Transductive: a query's result depends on the other queries; `metrics.json` marks such rows.
        answers: "rank" chooses from a list, scoring in full the k answers with the likeliest first token; "generate"
            decodes freely.
        beams: beam width of generated captions and answers.
        longest: maximum tokens of a generated caption, its prompt included (20 in BLIP).
        shortest: minimum tokens of the same (5 in BLIP).
        batch_size: pictures or texts per forward pass.
        block: text-visual pairs fused per forward pass; 0 chooses by the free memory of the device.
        features: where visual tokens are cached for reranking: "memory", "disk" (a file in the temporary folder) or
            "auto": on disk if they would fill more than half of the free memory.
        features_bf16: cache them in bfloat16, half the size; scores then differ in the third digit.
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
        validate_fields(self, "evaluate")
        fits = self.shortest <= self.longest
        require(fits, f"evaluate.shortest is {self.shortest}, more than evaluate.longest, {self.longest}")
