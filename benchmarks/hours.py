"""Work of the published recipes on paper: operations of a training step and of an evaluation, and hours of a GPU.

    python benchmarks/hours.py

Counts the multiplications and additions at BLIP-base's size (random weights) by torch's own counter, so that the
machine does not matter; sizes of the sets are the published ones. Nothing here has run on a GPU: hours are operations
divided by 40% of an A100's peak. Writes benchmarks/results/hours.json and prints the table of docs/reproduce.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from base_size import RESULTS, base_config
from many_gpus import Machine
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)

from uniadapter.app.comparing import run_of
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.checkpoints.loading import load_tokenizer
from uniadapter.config import RunConfig
from uniadapter.data.batches import Batch
from uniadapter.data.published_counts import published
from uniadapter.evaluation.answering import AnswerList
from uniadapter.model.decoding import generate_texts, question_context, rank_answers, visual_context
from uniadapter.model.encoding import begin_fusion, encode_text, encode_visual, match
from uniadapter.model.tokens import tokenize
from uniadapter.tasks.answering import AnswerLoss
from uniadapter.tasks.captioning import CaptionLoss
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo, TrainingLoss

MODELS: dict[str, type[PreTrainedModel]] = {
    "retrieval": BlipForImageTextRetrieval, "vqa": BlipForQuestionAnswering, "caption": BlipForConditionalGeneration,
}  # fmt: skip
# Of about as many tokens as those of the sets: 12 a caption, 8 a question, 1 an answer, with both ends 2 more.
CAPTION = "a dog and a cat on the left of a tree"
QUESTION = "what is to the left of the dog"
RUNS = ("coco", "flickr30k", "msrvtt", "didemo", "vqav2", "msrvtt_qa", "coco_caption")
STEP = StepInfo(0, 1, 0, 1)


@dataclass(frozen=True)
class Job:
    """A recipe's model with random weights, and two samples for it."""

    config: RunConfig
    model: PreTrainedModel
    tokenizer: Any
    pixels: Tensor

    @classmethod
    def of(cls, name: str) -> Job:
        """By the name of its config."""
        config = run_of(name)
        torch.manual_seed(0)
        model = MODELS[config.task](base_config(config.model.image_size)).double().eval().requires_grad_(False)
        add_adapter(model, config.model.adapter)
        side = config.model.image_size
        return cls(
            config,
            model,
            load_tokenizer("embedded"),
            torch.randn(2, max(1, config.data.frames), 3, side, side).double(),
        )

    def loss(self) -> TrainingLoss:
        """Of its task."""
        if self.config.task == "vqa":
            return AnswerLoss(self.model, self.tokenizer, self.config.model)
        if self.config.task == "caption":
            return CaptionLoss(self.model, self.tokenizer, self.config.model, self.config.model.prompt)
        return RetrievalLoss(self.model, self.tokenizer, self.config.model, self.config.objective).double()

    def step(self) -> float:
        """Operations of a training step, of one of its two samples."""
        rows = torch.arange(2)
        answers = [{"dog": 1.0}] * 2 if self.config.task == "vqa" else ()
        text = QUESTION if self.config.task == "vqa" else CAPTION
        batch, loss = Batch(self.pixels, [text] * 2, rows, rows, rows, answers), self.loss()
        return counted(lambda: loss(batch, STEP)["loss"].backward()) / 2

    def evaluation(self) -> tuple[float, float]:
        """Operations for a picture or video, and for each of its texts, or for each pair that is reranked."""
        model, settings = self.model, self.config.evaluate
        with torch.no_grad():
            one = self.pixels[:1]
            for_visual = counted(lambda: encode_visual(model, one))
            visuals, row = encode_visual(model, one), torch.zeros(1, dtype=torch.long)
            if self.config.task == "caption":
                prompt, context = self.config.model.prompt, visual_context(model, visuals)
                written = counted(
                    lambda: generate_texts(
                        model, self.tokenizer, context, prompt, settings.beams, settings.longest, settings.longest
                    )
                )
                return for_visual + written, 0.0
            if self.config.task == "vqa":
                asked = tokenize(self.tokenizer, [QUESTION], self.config.model.max_tokens)
                # as many different first tokens as answers: no prefix is shared
                listed = AnswerList(list(self.tokenizer.get_vocab())[300:][: settings.k], self.tokenizer, model)

                def answer() -> None:
                    context = question_context(model, visuals, asked.ids, asked.mask, row)
                    rank_answers(model, context, listed.tree, settings.k)

                return for_visual, counted(answer)
            text = tokenize(self.tokenizer, [CAPTION], self.config.model.max_tokens)
            encoded = encode_text(model, text.ids, text.mask)
            cache = begin_fusion(model, encoded)
            pair = torch.zeros((1, 2), dtype=torch.long)
            pairs = torch.zeros((33, 2), dtype=torch.long)  # of one visual, whose keys and values are made once
            first = counted(lambda: match(model, encoded, visuals, pair, cache))
            return for_visual + first, (counted(lambda: match(model, encoded, visuals, pairs, cache)) - first) / 32


def counted(call: Callable[[], Any]) -> float:
    """Operations of a call, each multiplication and each addition as one."""
    # attention as products, which the counter knows; fused for a CPU it does not
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def main() -> None:
    """Count, write, print."""
    rows = {}
    for name in RUNS:
        job = Job.of(name)
        data, settings = job.config.data, job.config.evaluate
        train, test = published(str(data.train)), published(str(data.test))
        assert train is not None, name
        assert test is not None, name
        step, (of_visual, of_text) = job.step(), job.evaluation()
        # Texts are reranked by visuals and visuals by texts.
        texts = (test.texts + test.visuals) * settings.k if job.config.task == "retrieval" else test.texts
        samples = job.config.train.epochs * train.texts
        rows[name] = {
            "samples": samples, "tflop_a_sample": round(step / 1e12, 3),
            "tflop_a_visual": round(of_visual / 1e12, 4), "tflop_a_text": round(of_text / 1e12, 5),
            "training_hours": round(samples * step / Machine.flops / 3600, 2),
            "evaluation_minutes": round((test.visuals * of_visual + texts * of_text) / Machine.flops / 60, 1),
        }  # fmt: skip
        epochs, told = job.config.train.epochs, rows[name]
        cells = f"{epochs} x {train.texts:,} | {step / 1e12:.2f} | {told['training_hours']:.1f} h"
        sys.stdout.write(f"| `{name}` | {cells} | {told['evaluation_minutes']:.0f} min |\n")
    (RESULTS / "hours.json").write_text(json.dumps({"flops": Machine.flops, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
