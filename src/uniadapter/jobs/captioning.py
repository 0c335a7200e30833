"""Captions of pictures or videos."""

from __future__ import annotations

import logging

import torch

from uniadapter.backbone import encode_visual
from uniadapter.config import DataConfig, RunConfig
from uniadapter.data.retrieval import load_retrieval
from uniadapter.data.splits import RetrievalSplit
from uniadapter.decoder import visual_context
from uniadapter.distributed import gather_list
from uniadapter.evaluation.captioning import INSTALL, can_score, caption_scores, require_scorer
from uniadapter.evaluation.mode import evaluating
from uniadapter.evaluation.rerank import Progress
from uniadapter.generation import check_lengths, generate_texts
from uniadapter.jobs.base import Result, shared, visuals_of
from uniadapter.preparing import Prepared, autocast
from uniadapter.tasks.answering import CaptionTask
from uniadapter.tokens import warn_of_cuts

logger = logging.getLogger(__name__)


class CaptionJob:
    """BLIP's captioning loss; CIDEr and BLEU-4 of what is written by beam search."""

    def load(self, path: str, config: DataConfig, which: str) -> RetrievalSplit:
        """Read a split from its file: the layouts of retrieval."""
        return load_retrieval(path, config, which)

    def task(self, prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> CaptionTask:
        """The training loss; that captions will not be scored, for want of a package, is said before."""
        warn_of_cuts(prepared.tokenizer, split.texts, config.model.max_tokens, "captions")
        if config.data.test or config.data.val:  # what would fail after training fails now
            settings, positions = config.evaluate, prepared.model.config.text_config.max_position_embeddings
            check_lengths(
                prepared.tokenizer, config.model.prompt, settings.beams, settings.longest, settings.shortest, positions
            )
        if config.train.keep == "best":
            require_scorer()
        elif (config.data.test or config.data.val) and not can_score():
            logger.warning("captions will be written and not scored: CIDEr and BLEU-4 need %s", INSTALL)
        return CaptionTask(prepared.model, prepared.tokenizer, config.model, config.model.prompt)

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Write a caption for every visual, and score it where the scorer is installed; `detail` is the captions."""
        loader = visuals_of(prepared, split, config)
        model, settings = prepared.model, config.evaluate
        written: list[str] = []
        with evaluating(model, autocast(settings.precision, model.device)):
            for batch in loader:
                visuals = encode_visual(model, batch.frames.to(model.device), config.model.frame_chunk)
                context = visual_context(model, visuals)
                written += generate_texts(
                    model, prepared.tokenizer, context, config.model.prompt, settings.beams, settings.longest,
                    settings.shortest,
                )  # fmt: skip
                if progress is not None:
                    progress(len(written), len(split.visuals))
        if shared(prepared, split):
            written = gather_list(written)
        if not can_score():
            headline = f"{len(written)} captions written, not scored: CIDEr and BLEU-4 need {INSTALL}"
            return Result({}, torch.zeros(len(written)), headline, 0.0, written)
        owned = split.visual_texts()
        references = {visual: [split.texts[text] for text in texts] for visual, texts in enumerate(owned)}
        found = caption_scores(dict(enumerate(written)), references)
        scores = {"cider": found.cider, "bleu@4": found.bleu4, "tokenizer": found.tokenizer}
        headline = f"CIDEr {found.cider:.1f}, BLEU-4 {found.bleu4:.1f} ({found.tokenizer} tokenizer)"
        return Result(scores, torch.tensor(found.cider_each) / 100, headline, found.cider, written)
