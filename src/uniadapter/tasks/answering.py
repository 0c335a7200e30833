"""The training losses of the decoder: answers to questions, and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.backbone import encode_visual
from uniadapter.config import ConfigError, ModelConfig
from uniadapter.data.batches import Batch
from uniadapter.distributed import share
from uniadapter.objectives.decoding import answer_loss, caption_nll
from uniadapter.tasks.base import Moment, Task
from uniadapter.tokens import prompt_tokens


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
        """The loss of this process's share of a step: sum of weight x likelihood, divided by its questions."""
        visuals = encode_visual(self.model, batch.frames, self.settings.frame_chunk)
        given = [self.answers[row] for row in batch.sample_ids.tolist()]
        loss = answer_loss(
            self.model, self.tokenizer, visuals, batch.captions, given, batch.rows, self.settings.max_tokens
        )
        return {"loss": loss * share(len(batch), batch.frames.device).weight}


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
        visuals = encode_visual(self.model, batch.frames, self.settings.frame_chunk)
        nll, count = caption_nll(
            self.model, self.tokenizer, visuals, batch.captions, batch.rows, self.prompt, self.settings.max_tokens
        )
        return {"loss": nll / max(1, count) * share(count, batch.frames.device).weight}
