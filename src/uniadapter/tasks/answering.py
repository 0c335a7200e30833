"""Question answering on pictures or videos: the training loss, and the accuracy of answers."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from uniadapter.config import ConfigError, DataConfig, RunConfig
from uniadapter.data.batches import Batch
from uniadapter.data.layouts.records import DataError
from uniadapter.data.layouts.vqa_files import Annotation
from uniadapter.data.questions import QuestionSplit, frequent_answers, load_questions, read_answer_list
from uniadapter.data.sharded import ANSWERS, listed_answers
from uniadapter.data.splits import FIRST_LOOK, RetrievalSplit, TrainingSet
from uniadapter.data.training_sets import is_large
from uniadapter.evaluation.answering import AnswerList, Prediction, evaluate_answers
from uniadapter.evaluation.rerank import Progress
from uniadapter.evaluation.vqa import exact_match, vqa_accuracy
from uniadapter.model.encoding import encode_visual
from uniadapter.model.tokens import warn_of_truncation
from uniadapter.objectives.decoding import answer_loss
from uniadapter.tasks.base import Result, is_distributed, visuals_loader
from uniadapter.tasks.preparing import Prepared, autocast
from uniadapter.training.loss import DecoderLoss, StepInfo

logger = logging.getLogger(__name__)


class AnswerTask:
    """Question answering; evaluated by VQA accuracy if there are several annotators, else by exact match."""

    def load(self, path: str, config: DataConfig, which: str) -> QuestionSplit:
        """Read a split from its file."""
        return load_questions(path, config, which)

    def training_loss(self, prepared: Prepared, split: TrainingSet, config: RunConfig) -> AnswerLoss:
        """The training loss; also sets the list of answers, `prepared.answers`."""
        warn_of_truncation(prepared.tokenizer, split.head(FIRST_LOOK).texts, config.model.max_tokens, "questions")
        prepared.answers = answer_list(prepared, config, split)
        return AnswerLoss(prepared.model, prepared.tokenizer, config.model)

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Answer every question; the result's `detail` is a list of `Prediction`."""
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
            if outside and split.first_time("answers that cannot be given"):
                logger.warning(
                    "%s: of %d questions %d have no answer among the %d to choose from, so they cannot be right; "
                    "data.answer_list takes others, evaluate.answers: generate none",
                    split.name, len(split.texts), outside, len(known),
                )  # fmt: skip
        return Result(scores, right, headline, scores.get("accuracy", 0.0), found)


def answer_list(prepared: Prepared, config: RunConfig, train: TrainingSet | None = None) -> list[str]:
    """The list of answers to choose from.

    Args:
        prepared: the model; its `answers` are those that the adapter was trained with.
        config: of the run.
        train: the training split, while training.

    Returns:
        The answers of `data.answer_list`, else those that the adapter was trained with, else the most frequent ones of
        the training split; of shards, those in the list beside them.

    Raises:
        ConfigError: the config names neither a list nor a training split; or there is no list beside its shards.
    """
    if config.data.answer_list:
        return read_answer_list(config.data.answer_list)
    if train is None and prepared.answers:
        return prepared.answers
    if train is None:
        if not config.data.train:
            raise ConfigError(
                "there is no list of answers: set data.answer_list, or data.train, or evaluate.answers to generate"
            )
        if not is_large(config.data.train):
            train = load_questions(config.data.train, config.data, "train")
    if not isinstance(train, QuestionSplit):
        listed = listed_answers(str(config.data.train))
        if listed is None:
            raise ConfigError(
                f"there is no {ANSWERS} beside {str(config.data.train)[:120]}, and the answers of shards or a stream "
                "are not known beforehand: name the answers to choose from with data.answer_list"
            )
        return listed[: config.data.answer_count or None]
    found = frequent_answers(train, config.data.answer_count)
    outside = sum(set(found).isdisjoint(own) for own in train.answers)
    logger.info("%d answers to choose from; %d training questions have none of them", len(found), outside)
    return found


def score_answers(split: QuestionSplit, found: list[Prediction]) -> tuple[dict[str, Any], torch.Tensor, str]:
    """Scores of the answers to a split.

    Args:
        split: with the right answers.
        found: a prediction for each question.

    Returns:
        Fields of the row in `metrics.json`, the accuracy of each question in 0..1, [questions], and a headline for the
        log. If the file has no answers, there are no fields and the accuracies are 0.
    """
    if not any(split.annotators):
        return {}, torch.zeros(len(found)), f"{len(found)} questions answered; the file has no answers to compare with"
    rows = [row for row, own in enumerate(split.annotators) if own]
    if len(rows) == len(found):
        return _score_answered(split, found)
    # Questions without an answer are left out of all figures.
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
    # Among questions with several annotators, one with a single annotator is right or wrong.
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
    """Accuracy, 0 to 100, of always giving the most frequent right answer."""
    return 100 * Counter(wanted).most_common(1)[0][1] / len(wanted)


def evalai_results(split: QuestionSplit, found: list[Prediction]) -> dict[int, str]:
    """From question id to answer, as in EvalAI's result file; the ids must be integers."""
    return {int(number): one.answer for number, one in zip(split.question_ids, found, strict=True)}


class AnswerLoss(DecoderLoss):
    """The loss of answers, weighted by how many annotators gave them; see `objectives.decoding.answer_loss`.

    Args:
        model: with question encoder and answer decoder; its adapters, or all weights, are trained.
        tokenizer: the base's.
        settings: max_tokens and frame_chunk are used.
    """

    def forward(self, batch: Batch, step: StepInfo) -> dict[str, Tensor]:
        """The loss of this process's batch, scaled so that the mean over processes is that of all questions."""
        visuals = encode_visual(self.model, batch.frames, self.settings.frame_chunk)
        loss = answer_loss(
            self.model, self.tokenizer, visuals, batch.captions, batch.answers, batch.rows, self.settings.max_tokens
        )
        return {"loss": loss * self.weight(len(batch), step, batch.frames.device)}
