"""Captioning of pictures or videos: the training loss, and CIDEr and BLEU-4 of captions from beam search."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ConfigError, DataConfig, ModelConfig, RunConfig
from uniadapter.data.batches import Batch
from uniadapter.data.captions import load_retrieval
from uniadapter.data.splits import FIRST_LOOK, RetrievalSplit, TrainingSet
from uniadapter.evaluation.captioning import INSTALL, CaptionScores, can_score, caption_scores, require_scorer
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.evaluation.recall import FEWEST, is_coin_toss
from uniadapter.evaluation.rerank import Progress
from uniadapter.model.decoding import check_lengths, generate_texts, visual_context
from uniadapter.model.dispatch import backbone
from uniadapter.model.encoding import encode_visual
from uniadapter.model.tokens import prompt_length, warn_of_truncation
from uniadapter.objectives.decoding import caption_nll, caption_terms
from uniadapter.processes.distributed import gather_list
from uniadapter.tasks.base import Result, is_distributed, visuals_loader
from uniadapter.tasks.preparing import Prepared, autocast
from uniadapter.training.loss import DecoderLoss, StepInfo

logger = logging.getLogger(__name__)


class CaptionTask:
    """Captioning; evaluated by CIDEr and BLEU-4 of captions from beam search."""

    def load(self, path: str, config: DataConfig, which: str) -> RetrievalSplit:
        """Read a split from its file; the layouts are those of retrieval."""
        return load_retrieval(path, config, which)

    def training_loss(self, prepared: Prepared, split: TrainingSet, config: RunConfig) -> CaptionLoss:
        """The training loss; warns if the package that scores captions is not installed."""
        warn_of_truncation(prepared.tokenizer, split.head(FIRST_LOOK).texts, config.model.max_tokens, "captions")
        if config.data.test or config.data.val:  # so that errors come before training, not after it
            settings, positions = config.evaluate, backbone(prepared.model).layout.positions
            check_lengths(
                prepared.tokenizer, config.model.prompt, settings.beams, settings.longest, settings.shortest, positions
            )
        if config.train.keep != "last":
            require_scorer()
        elif (config.data.test or config.data.val) and not can_score():
            logger.warning("captions will be written and not scored: CIDEr and BLEU-4 need %s", INSTALL)
        return CaptionLoss(prepared.model, prepared.tokenizer, config.model, config.model.prompt)

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Generate a caption for every visual, and score them if the scorer is installed; `detail` is the captions."""
        loader = visuals_loader(prepared, split, config)
        model, settings = prepared.model, config.evaluate
        written: list[str] = []
        with evaluation_mode(model, autocast(settings.precision, model.device)):
            for batch in loader:
                visuals = encode_visual(model, batch.frames.to(model.device), config.model.frame_chunk)
                context = visual_context(model, visuals)
                written += generate_texts(
                    model, prepared.tokenizer, context, config.model.prompt, settings.beams, settings.longest,
                    settings.shortest,
                )  # fmt: skip
                if progress is not None:
                    progress(len(written), len(split.visuals))
        if is_distributed(prepared, split):
            written = gather_list(written)
        if not can_score():
            headline = f"{len(written)} captions written, not scored: CIDEr and BLEU-4 need {INSTALL}"
            return Result({}, torch.zeros(len(written)), headline, 0.0, written)
        owned = split.visual_texts()
        references = {visual: [split.texts[text] for text in texts] for visual, texts in enumerate(owned)}
        found = caption_scores(dict(enumerate(written)), references)
        if len(owned) >= FEWEST and _is_by_chance(written, references, found):
            logger.warning(
                "%s: what is written resembles a visual's own captions no more than another's: do captions and %s "
                "belong together?", split.name, split.noun,
            )  # fmt: skip
        scores = {"cider": found.cider, "bleu@4": found.bleu4, "tokenizer": found.tokenizer}
        headline = f"CIDEr {found.cider:.1f}, BLEU-4 {found.bleu4:.1f} ({found.tokenizer} tokenizer)"
        return Result(scores, torch.tensor(found.cider_each) / 100, headline, found.cider, written)


def _is_by_chance(written: Sequence[str], references: Mapping[int, Sequence[str]], found: CaptionScores) -> bool:
    """Whether captions score no better against their own references, as was found, than against others'."""
    shifted = {visual: references[(visual + len(references) // 2) % len(references)] for visual in references}
    own = torch.tensor(found.cider_each)
    others = torch.tensor(caption_scores(dict(enumerate(written)), shifted, found.tokenizer).cider_each)
    return is_coin_toss((own > others)[own != others])


def are_likelier(prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> Tensor:
    """Whether each visual's first caption is likelier of it than of another visual of its batch, bool [visuals].

    Of a batch of one there is no other.
    """
    model, first = prepared.model, [split.texts[texts[0]] for texts in split.visual_texts()]
    right, begin = [torch.zeros(0, dtype=torch.bool)], 0
    with evaluation_mode(model, autocast(config.evaluate.precision, model.device)):
        for batch in visuals_loader(prepared, split, config):
            count = len(batch.frames)
            captions, own = first[begin : begin + count], torch.arange(count)
            begin += count
            if count > 1:
                visuals = encode_visual(model, batch.frames.to(model.device), config.model.frame_chunk)
                nll = [
                    caption_nll(
                        model, prepared.tokenizer, visuals, captions, rows, config.model.prompt, config.model.max_tokens
                    )[0]
                    for rows in (own, own.roll(count // 2))
                ]
                right.append((nll[0] < nll[1]).cpu())
    return torch.cat(right)


class CaptionLoss(DecoderLoss):
    """The loss of captions: label-smoothed, the mean over the tokens after the prompt.

    Args:
        model: with a caption decoder; its adapters, or all weights, are trained.
        tokenizer: the base's.
        settings: max_tokens and frame_chunk are used.
        prompt: precedes every caption; its tokens are not predicted.

    Raises:
        ConfigError: the prompt leaves no room for a caption.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: ModelConfig,
        prompt: str,
    ) -> None:
        super().__init__(model, tokenizer, settings)
        self.prompt = prompt
        self.given = prompt_length(tokenizer, prompt)
        if self.given + 2 > settings.max_tokens:
            raise ConfigError(
                f"model.prompt has {self.given} tokens with [DEC], and model.max_tokens is {settings.max_tokens}: "
                "no room is left for a caption; shorten the prompt or raise max_tokens"
            )

    def forward(self, batch: Batch, step: StepInfo) -> dict[str, Tensor]:
        """The loss of this process's batch, scaled so that the mean over processes is that over all tokens."""
        visuals = encode_visual(self.model, batch.frames, self.settings.frame_chunk)
        nll, count = caption_nll(
            self.model, self.tokenizer, visuals, batch.captions, batch.rows, self.prompt, self.settings.max_tokens
        )
        return {"loss": nll.sum() / max(1, count) * self.weight(count, step, batch.frames.device)}

    def terms(self, batch: Batch) -> int:
        """The tokens to predict."""
        return caption_terms(self.model, self.tokenizer, batch.captions, self.prompt, self.settings.max_tokens)
