"""Questions about pictures or videos: the loss of their answers, and how right the answers are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ConfigError, DataConfig, ModelConfig, RunConfig
from uniadapter.data.batches import Batch
from uniadapter.data.layouts.vqa_files import Annotation
from uniadapter.data.media.records import DataError
from uniadapter.data.questions import QuestionSplit, frequent_answers, load_questions, read_answer_list
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.answering import AnswerList, Prediction, evaluate_answers
from uniadapter.evaluation.rerank import Progress
from uniadapter.evaluation.vqa import exact_match, vqa_accuracy
from uniadapter.model.encoding import encode_visual
from uniadapter.model.tokens import warn_of_truncation
from uniadapter.objectives.decoding import answer_loss
from uniadapter.processes.distributed import share
from uniadapter.tasks.base import Result, is_distributed, visuals_loader
from uniadapter.tasks.loss import DecoderLoss, StepInfo
from uniadapter.tasks.preparing import Prepared, autocast

logger = logging.getLogger(__name__)


class AnswerTask:
    """The answer loss; VQA accuracy where there are several annotators, exact match where there is one."""

    def load(self, path: str, config: DataConfig, which: str) -> QuestionSplit:
        """Read a split from its file."""
        return load_questions(path, config, which)

    def training_loss(self, prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> AnswerLoss:
        """The training loss; the list of answers is settled with it."""
        warn_of_truncation(prepared.tokenizer, split.texts, config.model.max_tokens, "questions")
        assert isinstance(split, QuestionSplit)
        prepared.answers = answer_list(prepared, config, split)
        return AnswerLoss(prepared.model, prepared.tokenizer, config.model, split.answers)

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Answer every question; `detail` is a list of `Prediction`."""
        assert isinstance(split, QuestionSplit)
        answers = None
        if config.evaluate.answers == "rank":
            prepared.answers = answer_list(prepared, config)
            try:
                answers = AnswerList(prepared.answers, prepared.tokenizer, prepared.model)
            except ValueError as error:
                raise DataError(f"{config.data.answer_list or 'the answers of data.train'}: {error}") from None
        loader = visuals_loader(prepared, split, config)
        found = evaluate_answers(
            prepared.model, prepared.tokenizer, split, loader, config.model, config.evaluate, answers,
            autocast(config.evaluate.precision, prepared.model.device), progress, is_distributed(prepared, split),
        )  # fmt: skip
        scores, right, headline = score_answers(split, found)
        if answers is not None:
            known = set(answers.answers)
            outside = sum(bool(own) and known.isdisjoint(own) for own in split.answers)
            scores["out_of_list"] = outside
            scores["answer_list"] = len(known)
            if outside and split.once("answers that cannot be given"):
                logger.warning(
                    "%s: of %d questions %d have no answer among the %d to choose from, so they cannot be right; "
                    "data.answer_list takes others, evaluate.answers: generate none",
                    split.name, len(split.texts), outside, len(known),
                )  # fmt: skip
        return Result(scores, right, headline, scores.get("accuracy", 0.0), found)


def answer_list(prepared: Prepared, config: RunConfig, train: QuestionSplit | None = None) -> list[str]:
    """The answers to choose from: a file's, those the adapter was trained with, or those of the training split."""
    if config.data.answer_list:
        return read_answer_list(config.data.answer_list)
    if train is None and prepared.answers:
        return prepared.answers
    if train is None:
        if not config.data.train:
            raise ConfigError(
                "there is no list of answers: set data.answer_list, or data.train, or evaluate.answers to generate"
            )
        train = load_questions(config.data.train, config.data, "train")
    found = frequent_answers(train, config.data.answer_count)
    outside = sum(set(found).isdisjoint(own) for own in train.answers)
    logger.info("%d answers to choose from; %d training questions have none of them", len(found), outside)
    return found


def score_answers(split: QuestionSplit, found: list[Prediction]) -> tuple[dict[str, Any], torch.Tensor, str]:
    """Scores of a split, how right each question was, and the headline; nothing where the file has no answers."""
    if not any(split.annotators):
        return {}, torch.zeros(len(found)), f"{len(found)} questions answered; the file has no answers to compare with"
    rows = [row for row, own in enumerate(split.annotators) if own]
    if len(rows) == len(found):
        return _score_answered(split, found)
    # Those without an answer say nothing of the model: no figure counts them.
    part = replace(split, text_visual=list(split.text_visual))
    part.keep_texts(rows)
    scores, some, headline = _score_answered(part, [found[row] for row in rows])
    right = torch.zeros(len(found))
    right[rows] = some
    unanswered = len(found) - len(rows)
    return {**scores, "unanswered": unanswered}, right, f"{headline}, without {unanswered} that have no answer"


def _score_answered(split: QuestionSplit, found: list[Prediction]) -> tuple[dict[str, Any], torch.Tensor, str]:
    said = [prediction.answer for prediction in found]
    if max(map(len, split.annotators)) == 1:
        wanted = [own[0] for own in split.annotators]
        exact = exact_match(said, wanted, split.texts)
        words = dict(exact.by_question_word)
        scores: dict[str, Any] = {"accuracy": exact.overall, "metric": "exact match", "by_question_word": words}
        scores["majority_answer"] = majority(wanted)
        kinds: dict[str, list[int]] = {kind: [] for kind in sorted(set(split.kinds))}
        for row, kind in enumerate(split.kinds):
            kinds[kind].append(row)
        if set(kinds) != {""}:
            most = {kind: majority([wanted[row] for row in rows]) for kind, rows in kinds.items()}
            scores["by_answer_type"] = {
                kind: 100 * sum(exact.correct[row] for row in rows) / len(rows) for kind, rows in kinds.items()
            }
            scores["majority_by_answer_type"] = most
            scores["majority_of_answer_type"] = sum(most[k] * len(rows) for k, rows in kinds.items()) / len(wanted)
        return scores, torch.tensor(exact.correct).float(), f"accuracy {exact.overall:.2f} (exact match)"
    # Beside questions of several annotators, one that a single one answered is right or wrong.
    annotations = [
        Annotation(row, 0, split.question_types[row], split.kinds[row], own if len(own) > 1 else own * 10)
        for row, own in enumerate(split.annotators)
    ]
    official = vqa_accuracy(dict(enumerate(said)), annotations)
    right = torch.tensor([official.by_question[row] for row in range(len(said))])
    scores = {"accuracy": official.overall, "metric": "VQA accuracy"}
    for name, values in (("answer", official.by_answer_type), ("question", official.by_question_type)):
        if set(values) != {""}:
            scores[f"by_{name}_type"] = values
    return scores, right, f"VQA accuracy {official.overall:.2f}"


def majority(wanted: list[str]) -> float:
    """Accuracy, 0 to 100, of who always gives the most frequent of the right answers."""
    return 100 * Counter(wanted).most_common(1)[0][1] / len(wanted)


def evalai_results(split: QuestionSplit, found: list[Prediction]) -> dict[int, str]:
    """Question ids and answers, as EvalAI's result file has them; the ids are numbers."""
    return {int(number): one.answer for number, one in zip(split.question_ids, found, strict=True)}


class AnswerLoss(DecoderLoss):
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

    def forward(self, batch: Batch, step: StepInfo) -> dict[str, Tensor]:
        """The loss of this process's share of a step: sum of weight x likelihood, divided by its questions."""
        visuals = encode_visual(self.model, batch.frames, self.settings.frame_chunk)
        given = [self.answers[row] for row in batch.sample_ids.tolist()]
        loss = answer_loss(
            self.model, self.tokenizer, visuals, batch.captions, given, batch.rows, self.settings.max_tokens
        )
        return {"loss": loss * share(len(batch), batch.frames.device).weight}
