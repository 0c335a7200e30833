"""Answer questions by ranking a list of answers, or by generating a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import EvaluateConfig, ModelConfig
from uniadapter.data.batches import Batch
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.blocks import block_questions, rows_by
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.model.decoding import generate_texts, question_context, rank_answers
from uniadapter.model.dispatch import decoding
from uniadapter.model.encoding import encode_visual
from uniadapter.model.features import AnswerTree, Context, Visuals
from uniadapter.model.pair_rows import arranged
from uniadapter.model.tokens import token_ids, tokenize, warn_of_truncation
from uniadapter.processes.distributed import gather_list

RUNNERS_UP = 5  # most probable answers that a prediction keeps, the chosen one included
ANSWER_TOKENS = 10  # most tokens of a generated answer


@dataclass(frozen=True)
class Prediction:
    """The answer to one question.

    Args:
        answer: the most probable one of the list, or the generated text.
        ranked: the five most probable answers with their probabilities, the softmax of -nll over the ranked candidates;
            empty if the answer was generated.
    """

    answer: str
    ranked: tuple[tuple[str, float], ...] = ()


class AnswerList:
    """A list of answers for a model to choose from, tokenised and as a prefix tree.

    Args:
        answers: texts; duplicates are removed.
        tokenizer: the base's.
        model: with an answer decoder.

    Raises:
        ValueError: the list is empty, or an answer is empty or longer than the decoder's positions.
    """

    def __init__(self, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        self.answers = list(dict.fromkeys(answers))
        if not self.answers:
            raise ValueError("the list of answers is empty")
        decoder = decoding(model)
        start, end, positions = decoder.start_token, decoder.end_token, decoder.layout.positions
        listed = token_ids(tokenizer, self.answers)
        for answer, ids in zip(self.answers, listed, strict=True):
            if not ids:
                raise ValueError(f"the answer {answer!r} has no token: remove it from the list")
            if len(ids) + 2 > positions:
                limit = positions - 2
                raise ValueError(f"the answer {answer[:60]!r} … has {len(ids)} tokens: the decoder takes {limit}")
        self.tree = AnswerTree.of([[start, *ids, end] for ids in listed]).to(model.device)
        # Mean number of tokens that the decoder reads per answer: shared prefixes count once, the last token does not.
        self.tokens = (int(self.tree.nodes.max()) + 1) / len(self.answers) - 1

    def predictions(self, chosen: Tensor, nll: Tensor) -> list[Prediction]:
        """Predictions for Q questions from the results of `rank_answers`, both [Q, k]."""
        probabilities = (-nll).softmax(dim=1)[:, :RUNNERS_UP].tolist()
        best = chosen[:, :RUNNERS_UP].tolist()
        pairs = [zip(*row, strict=True) for row in zip(best, probabilities, strict=True)]
        named = [[(self.answers[answer], probability) for answer, probability in row] for row in pairs]
        return [Prediction(row[0][0], tuple(row)) for row in named]


def answer_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Visuals,
    questions: Sequence[str],
    rows: Sequence[int],
    settings: ModelConfig,
    config: EvaluateConfig,
    answers: AnswerList | None,
) -> list[Prediction]:
    """Answer questions about encoded visuals.

    Args:
        model: with question encoder and answer decoder.
        tokenizer: the base's.
        visuals: V pictures or videos.
        questions: Q cleaned texts.
        rows: index of each question's visual.
        settings: max_tokens is used.
        config: k, block, batch_size and beams are used.
        answers: the list to choose from; None generates answers.

    Returns:
        Q predictions.
    """
    ways = [AnswerWay(config, answers)] * len(questions)
    return answer_rows(model, tokenizer, visuals, questions, rows, settings, config.batch_size, ways)


@dataclass(frozen=True)
class AnswerWay:
    """How a question is answered.

    Args:
        config: k, block and beams are used.
        answers: the list to choose from; None generates an answer.
    """

    config: EvaluateConfig
    answers: AnswerList | None


def answer_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Visuals,
    questions: Sequence[str],
    rows: Sequence[int],
    settings: ModelConfig,
    batch_size: int,
    ways: Sequence[AnswerWay],
) -> list[Prediction]:
    """As `answer_questions`, each question in its own way; all are fused with their visuals in one pass.

    Args:
        model: with question encoder and answer decoder.
        tokenizer: the base's.
        visuals: V pictures or videos.
        questions: Q cleaned texts.
        rows: index of each question's visual.
        settings: max_tokens is used.
        batch_size: questions fused at once.
        ways: of the Q questions; the same object where it is the same way.
    """
    found: list[Prediction] = []
    for start in range(0, len(questions), batch_size):
        part = slice(start, start + batch_size)
        tokens = tokenize(tokenizer, list(questions[part]), settings.max_tokens)
        about = torch.tensor(rows[part], device=model.device)
        with arranged(model, part):
            context = question_context(model, visuals, tokens.ids.to(model.device), tokens.mask.to(model.device), about)
            found += _in_their_ways(model, tokenizer, context, ways[part])
    return found


def _in_their_ways(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: Context, ways: Sequence[AnswerWay]
) -> list[Prediction]:
    """Answers to the questions of a context, those of the same way together."""
    found: dict[int, Prediction] = {}
    for members in rows_by([id(way) for way in ways]).values():
        index = torch.tensor(members, device=context.mask.device)
        with arranged(model, index):
            given = _answer(model, tokenizer, context.select(index), ways[members[0]])
        found.update(zip(members, given, strict=True))
    return [found[row] for row in range(len(ways))]


def _answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: Context, way: AnswerWay
) -> list[Prediction]:
    config, answers = way.config, way.answers
    if answers is None:
        texts = generate_texts(model, tokenizer, context, beams=config.beams, longest=ANSWER_TOKENS)
        return [Prediction(text) for text in texts]
    # A block counts pairs of question and answer, so that memory does not grow with the list.
    count = min(config.k, len(answers.answers)) or len(answers.answers)
    step = max(1, config.block // count) if config.block else block_questions(model, count * answers.tokens)
    found: list[Prediction] = []
    for start in range(0, len(context), step):
        part = slice(start, start + step)
        with arranged(model, part):
            found += answers.predictions(*rank_answers(model, context.select(part), answers.tree, count))
    return found


def evaluate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    split: RetrievalSplit,
    batches: Iterable[Batch],
    settings: ModelConfig,
    config: EvaluateConfig,
    answers: AnswerList | None,
    autocast: AbstractContextManager[None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    distributed: bool = False,
) -> list[Prediction]:
    """Answer every question of a split, in its order, a batch of visuals at a time.

    Args:
        model: in evaluation mode during this call.
        tokenizer: the base's.
        split: of questions.
        batches: its visuals, in order; in distributed evaluation, this process's share.
        settings: max_tokens and frame_chunk are used.
        config: of the evaluation.
        answers: the list to choose from; None generates answers.
        autocast: a context manager for lower precision.
        progress: called with the number of answered questions and of all.
        distributed: all processes call this function, each with its share of the visuals; each gets all predictions.

    Returns:
        A prediction for every question.
    """
    owned, found = split.visual_texts(), dict[int, Prediction]()
    warn_of_truncation(tokenizer, split.texts, settings.max_tokens, "questions")
    with evaluation_mode(model, autocast):
        for batch in batches:
            visuals = encode_visual(model, batch.frames.to(model.device), settings.frame_chunk)
            asked = [(text, row) for row, visual in enumerate(batch.ids.tolist()) for text in owned[visual]]
            texts = [split.texts[text] for text, _ in asked]
            about = [row for _, row in asked]
            given = answer_questions(model, tokenizer, visuals, texts, about, settings, config, answers)
            found.update(zip((text for text, _ in asked), given, strict=True))
            if progress is not None:
                progress(len(found), len(split.texts))
    if distributed:
        found = dict(gather_list(list(found.items())))
    return [found[text] for text in range(len(split.texts))]
