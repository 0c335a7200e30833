"""Retrieval between texts and pictures or videos."""

from __future__ import annotations

from uniadapter.config import DataConfig, RunConfig
from uniadapter.data.retrieval import load_retrieval
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.rerank import Progress
from uniadapter.evaluation.retrieval import evaluate_retrieval
from uniadapter.jobs.base import Result, shared, visuals_of
from uniadapter.preparing import Prepared, autocast
from uniadapter.tasks.retrieval import RetrievalTask
from uniadapter.tokens import warn_of_cuts


class RetrievalJob:
    """ITC + ITM; recall both ways."""

    def load(self, path: str, config: DataConfig, which: str) -> RetrievalSplit:
        """Read a split from its file."""
        return load_retrieval(path, config, which)

    def task(self, prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> RetrievalTask:
        """The training loss."""
        warn_of_cuts(prepared.tokenizer, split.texts, config.model.max_tokens, "captions")
        return RetrievalTask(
            prepared.model, prepared.tokenizer, config.model, config.objective, prepared.adapter, config.train.seed
        )

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Contrastive similarity, then the matching head on the best; `detail` is a `RetrievalResult`."""
        loader = visuals_of(prepared, split, config)
        precision = autocast(config.evaluate.precision, prepared.model.device)
        found = evaluate_retrieval(
            prepared.model, prepared.tokenizer, split, loader, config.model, config.evaluate, precision, progress,
            shared(prepared, split),
        )  # fmt: skip
        text, visual, kind = found.text_to_visual, found.visual_to_text, split.visual_kind
        return Result(
            scores={f"text_to_{kind}": text, f"{kind}_to_text": visual},
            right=(found.text_ranks == 1).float(),
            headline=f"R@1: text to {kind} {text['r@1']:.2f}, {kind} to text {visual['r@1']:.2f}",
            main=text["r@1"],
            detail=found,
        )
