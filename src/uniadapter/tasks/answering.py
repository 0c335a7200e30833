"""The training losses of the decoder: answers to questions, and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.backbone import encode_visual
from uniadapter.config import ConfigError, ModelConfig
from uniadapter.data.batches import Batch
from uniadapter.decoder import question_context, text_nll, visual_context
from uniadapter.distributed import share
from uniadapter.tasks.base import Moment, Task
from uniadapter.tokens import decoder_tokens, prompt_tokens, prompted, tokenize


class _DecoderTask(Task):
    """A model and its tokenizer; nothing is kept between steps."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: ModelConfig) -> None:
        super().__init__()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings


class AnswerTask(_DecoderTask):
    """The loss of answers: negative log-likelihoods, label-smoothed, weighed by how many gave the answer.

    Args:
        model: a `BlipForQuestionAnswering` with the adapters, or with every weight, to train.
        tokenizer: the base's.
        settings: max_tokens and frame_chunk are used.
        answers: for each question of the split its answers and their weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: ModelConfig,
        answers: Sequence[Mapping[str, float]],
    ) -> None:
        super().__init__(model, tokenizer, settings)
        self.answers = answers

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """The loss of this process's share of a step: sum of weight x likelihood, divided by its questions.

        The release divides a batch of videos by the frames too, so that there gradients shrink with them.
        """
        device = batch.frames.device
        questions = tokenize(self.tokenizer, batch.captions, self.settings.max_tokens)
        visuals = encode_visual(self.model, batch.frames, self.settings.frame_chunk)
        context = question_context(self.model, visuals, questions.ids.to(device), questions.mask.to(device), batch.rows)
        given = [self.answers[row] for row in batch.sample_ids.tolist()]
        texts = [text for answers in given for text in answers]
        weights = torch.tensor([weight for answers in given for weight in answers.values()], device=device)
        rows = torch.tensor([row for row, answers in enumerate(given) for _ in answers], device=device)
        tokens = decoder_tokens(self.tokenizer, self.model, texts, self.settings.max_tokens)
        nll = text_nll(self.model, context, rows, tokens.ids.to(device), tokens.mask.to(device))
        loss = (nll * weights).sum() / len(batch) * share(len(batch), device).weight
        return {"loss": loss}


class CaptionTask(_DecoderTask):
    """The loss of captions: mean over the tokens after the prompt, label-smoothed.

    Args:
        model: a `BlipForConditionalGeneration` with the adapters, or with every weight, to train.
        tokenizer: the base's.
        settings: max_tokens and frame_chunk are used.
        prompt: before every caption; not learnt.

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
        self.given = prompt_tokens(tokenizer, prompt)
        if self.given + 2 > settings.max_tokens:
            raise ConfigError(
                f"model.prompt has {self.given} tokens with [DEC], and model.max_tokens is {settings.max_tokens}: "
                "no caption has room behind it; shorten the prompt or raise max_tokens"
            )

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """The loss of this process's share of a step, as BLIP's a mean over all tokens of the batch."""
        device = batch.frames.device
        visuals = encode_visual(self.model, batch.frames, self.settings.frame_chunk)
        texts = [prompted(self.prompt, caption) for caption in batch.captions]
        tokens = decoder_tokens(self.tokenizer, self.model, texts, self.settings.max_tokens)
        ids, mask = tokens.ids.to(device), tokens.mask.to(device)
        nll = text_nll(self.model, visual_context(self.model, visuals), batch.rows, ids, mask, self.given)
        count = int(mask[:, self.given :].sum())
        return {"loss": nll.sum() / max(1, count) * share(count, device).weight}
