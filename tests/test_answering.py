"""Answers and captions: losses against transformers' own, whole splits against one question at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipForQuestionAnswering, PreTrainedTokenizerBase

from squares import COLOURS, save_tokenizer
from tiny import randomise, tiny_model
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig, EvaluateConfig, ModelConfig
from uniadapter.data.batches import Batch
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation import answering
from uniadapter.evaluation.answering import AnswerList, Prediction, answer_questions, evaluate_answers
from uniadapter.evaluation.blocks import block_questions
from uniadapter.model.adapter import KeyValueAdapter
from uniadapter.model.blip.decoder import decode, question_context, visual_context
from uniadapter.model.blip.ranking import rank_answers
from uniadapter.model.decoding import decoder_tokens, generate_texts
from uniadapter.model.encoding import encode_visual
from uniadapter.model.features import Context
from uniadapter.model.sets import adapter_set
from uniadapter.model.tokens import tokenize
from uniadapter.tasks.answering import AnswerLoss
from uniadapter.tasks.captioning import CaptionLoss
from uniadapter.training.loss import StepInfo

MOMENT = StepInfo(0, 0, 0, 1)
ANSWERS = ["red", "a red square", "blue", "a blue square", "the picture of a square", "grey"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def adapted(cls: type[torch.nn.Module], seed: int = 0) -> torch.nn.Module:
    model = tiny_model(cls, seed=seed)  # type: ignore[arg-type]
    randomise(add_adapter(model, AdapterConfig(bottleneck=5, key_value=3)), scale=0.1)
    return model


def batch(texts: list[str], rows: list[int], seed: int = 0, frames: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(len(texts), frames, 3, 32, 32, generator=generator)
    own = torch.arange(len(texts))
    return Batch(pixels, texts, own, torch.tensor(rows), own)


@pytest.mark.parametrize("frames", [1, 3])
def test_the_answer_loss_is_the_weighed_likelihood_of_each_answer(
    tokenizer: PreTrainedTokenizerBase, frames: int
) -> None:
    model = adapted(BlipForQuestionAnswering)
    model.config.text_config.label_smoothing = 0.1
    answers = [{"red": 1.0}, {}, {"a red square": 0.7, "blue": 0.3}]
    task = AnswerLoss(model, tokenizer, ModelConfig())
    given = replace(batch(["the picture", "a square of red"], [2, 0], frames=frames), answers=[answers[2], answers[0]])
    loss = task(given, MOMENT)["loss"]
    expected = torch.zeros(())
    for row, (text, own) in enumerate([("the picture", answers[2]), ("a square of red", answers[0])]):
        tokens = tokenize(tokenizer, [text], 35)
        visuals = encode_visual(model, given.frames[row : row + 1])
        context = question_context(model, visuals, tokens.ids, tokens.mask, torch.zeros(1, dtype=torch.long))
        for answer, weight in own.items():
            ids = decoder_tokens(tokenizer, model, [answer], 35).ids
            states = decode(model, context, torch.zeros(1, dtype=torch.long), ids)[0, :-1]
            nll = torch.nn.functional.cross_entropy(
                model.text_decoder.cls(states), ids[0, 1:], reduction="sum", label_smoothing=0.1
            )
            expected = expected + weight * nll / 2
    assert torch.allclose(loss, expected, atol=1e-5)
    loss.backward()
    assert all(p.grad is not None for n, p in adapter_set(model).named_parameters() if n.startswith("layers.0"))


def test_the_caption_loss_is_the_one_of_transformers(tokenizer: PreTrainedTokenizerBase) -> None:
    model = adapted(BlipForConditionalGeneration)
    model.config.text_config.label_smoothing = 0.1
    model.text_decoder.label_smoothing = 0.1
    texts = ["a red square", "the picture of a blue square"]
    task = CaptionLoss(model, tokenizer, ModelConfig(), "a picture of ")
    given = batch(texts, [0, 1])
    loss = task(given, MOMENT)["loss"]
    tokens = decoder_tokens(tokenizer, model, [f"a picture of {text}" for text in texts], 35)
    labels = tokens.ids.masked_fill(tokens.mask == 0, -100)
    labels[:, : task.given] = -100
    out = model.text_decoder(
        input_ids=tokens.ids, attention_mask=tokens.mask,
        encoder_hidden_states=visual_context(model, encode_visual(model, given.frames)).states, labels=labels,
    )  # fmt: skip
    assert task.given == 4  # [DEC] a picture of
    assert torch.allclose(loss, out.loss, atol=1e-5)


@pytest.mark.parametrize("kind", ["answers", "captions"])
def test_samples_of_one_visual_learn_as_from_copies_of_it(tokenizer: PreTrainedTokenizerBase, kind: str) -> None:
    texts = ["the picture", "a square of red", "the red square", "a blue picture of a square", "grey"]
    rows, about = torch.tensor([4, 0, 2, 1, 3]), torch.tensor([0, 0, 1, 2, 2])
    answers = [{"red": 1.0}, {}, {"a red square": 0.7, "blue": 0.3}, {"grey": 0.5}, {"the picture of a square": 1.0}]
    pixels = batch([""] * 3, [0, 1, 2], frames=2).frames
    encoded: list[int] = []

    def learn(given: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        task: AnswerLoss | CaptionLoss
        if kind == "answers":
            task = AnswerLoss(adapted(BlipForQuestionAnswering), tokenizer, ModelConfig())
        else:
            task = CaptionLoss(adapted(BlipForConditionalGeneration), tokenizer, ModelConfig(), "a picture of ")
        task.requires_grad_(True)
        task.model.vision_model.embeddings.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
        loss = task(given, MOMENT)["loss"]
        loss.backward()
        return loss.detach(), {name: p.grad for name, p in task.named_parameters() if p.grad is not None}

    given = [answers[row] for row in rows]
    loss, gradients = learn(Batch(pixels, texts, about, rows, about, given))
    expected, copied = learn(Batch(pixels[about], texts, about, rows, torch.arange(5), given))
    assert encoded == [6, 10]
    assert torch.allclose(loss, expected, atol=1e-6)
    assert gradients.keys() == copied.keys()
    assert sum("vision_model" in name for name in gradients) > 10
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, copied[name], atol=1e-6 + 1e-5 * float(gradient.abs().max())), name


def test_a_whole_split_is_answered_as_one_question_at_a_time(tokenizer: PreTrainedTokenizerBase) -> None:
    model = adapted(BlipForQuestionAnswering, seed=1)
    questions = [f"the {colour} picture" + " of a square" * (n % 3) for n, colour in enumerate(COLOURS)]
    owners = [2, 0, 1, 0, 2, 1, 0, 1]
    split = RetrievalSplit("test", visuals=[Path()] * 3, texts=questions, text_visual=owners)
    pixels = batch([""] * 3, [0, 1, 2], frames=2).frames
    two, one = torch.arange(2), torch.tensor([2])
    parts = [Batch(pixels[:2], [], two, two, two), Batch(pixels[2:], [], one, one, torch.tensor([0]))]
    answers = AnswerList([*ANSWERS, "red"], tokenizer, model)
    assert answers.answers == ANSWERS
    config = EvaluateConfig(k=4, block=7, batch_size=3)
    seen: list[tuple[int, int]] = []
    found = evaluate_answers(
        model, tokenizer, split, parts, ModelConfig(), config, answers, progress=lambda *done: seen.append(done)
    )
    assert seen == [(5, 8), (8, 8)] or seen == [(6, 8), (8, 8)]
    for question, owner, prediction in zip(questions, owners, found, strict=True):
        with torch.no_grad():
            visuals = encode_visual(model, pixels[owner : owner + 1])
        alone = answer_questions(model, tokenizer, visuals, [question], [0], ModelConfig(), config, answers)[0]
        assert [text for text, _ in alone.ranked] == [text for text, _ in prediction.ranked]
        assert prediction.answer == prediction.ranked[0][0]
        probabilities = [p for _, p in prediction.ranked]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)  # all four candidates are kept


@torch.no_grad()
def test_what_is_written_does_not_depend_on_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    model = adapted(BlipForQuestionAnswering, seed=2)
    visuals = encode_visual(model, batch([""], [0]).frames)
    questions = ["the picture", "the red picture of a square of a square of a square"]
    together = answer_questions(model, tokenizer, visuals, questions, [0, 0], ModelConfig(), EvaluateConfig(), None)
    for question, prediction in zip(questions, together, strict=True):
        alone = answer_questions(model, tokenizer, visuals, [question], [0], ModelConfig(), EvaluateConfig(), None)[0]
        assert alone.answer == prediction.answer


@torch.no_grad()
def test_captions_start_behind_the_prompt_and_keep_their_length(tokenizer: PreTrainedTokenizerBase) -> None:
    model = adapted(BlipForConditionalGeneration, seed=3)
    context = visual_context(model, encode_visual(model, batch([""] * 3, [0, 1, 2]).frames))
    texts = generate_texts(model, tokenizer, context, "a picture of ", beams=2, longest=9, shortest=6)
    assert len(texts) == 3
    assert all(len(text.split()) <= 5 for text in texts)
    greedy = model.text_decoder.generate(
        input_ids=torch.tensor([[62, 5, 8, 9]]), encoder_hidden_states=context.states[:1], max_length=9,
        eos_token_id=3, pad_token_id=0, do_sample=False, num_beams=1,
    )  # fmt: skip
    ours = generate_texts(model, tokenizer, context.select(slice(0, 1)), "a picture of ", beams=1, longest=9)
    assert ours == [tokenizer.decode(greedy[0, 4:], skip_special_tokens=True).strip()]


def test_lists_that_cannot_be_ranked(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny_model(BlipForQuestionAnswering)
    for answers, message in ([], "empty"), (["red", ""], "no token"), (["red " * 50], "the decoder takes 38"):
        with pytest.raises(ValueError, match=message):
            AnswerList(answers, tokenizer, model)


def test_answers_of_many_questions_are_ranked_at_once(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(BlipForQuestionAnswering)
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=3)))
    asked, words = ["what square", "the picture of", "a"] * 8, ["red", "a red square", "blue", "a green square"]
    sizes: list[int] = []

    def counted(model: Any, context: Context, *rest: Any) -> Any:
        sizes.append(len(context))
        return rank_answers(model, context, *rest)

    monkeypatch.setattr(answering, "rank_answers", counted)
    listed = AnswerList(words, tokenizer, model)
    visuals = encode_visual(model, torch.randn(1, 1, 3, 32, 32))

    def answered(block: int) -> list[Prediction]:
        sizes.clear()
        config = EvaluateConfig(k=0, block=block)
        return answer_questions(model, tokenizer, visuals, asked, [0] * 24, ModelConfig(), config, listed)

    with torch.no_grad():
        one_by_one = answered(len(words))
        assert sizes == [1] * 24
        assert [p.answer for p in answered(3 * len(words))] == [p.answer for p in one_by_one]
        assert sizes == [3] * 8
        at_once = answered(0)
        assert sizes == [24], "by default as many as the device has room for"
    for one, other in zip(at_once, one_by_one, strict=True):
        assert [answer for answer, _ in one.ranked] == [answer for answer, _ in other.ranked]
        assert [p for _, p in one.ranked] == pytest.approx([p for _, p in other.ranked], abs=1e-5)
    assert block_questions(model, 4000.0) == 1, "a long list is ranked one question at a time on a CPU"


@pytest.mark.parametrize("beams", [1, 3])
def test_key_and_value_deltas_are_computed_once_a_text(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    model = tiny_model(BlipForConditionalGeneration)
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=3)), scale=0.5)
    calls: list[int] = []
    forward = KeyValueAdapter.forward
    monkeypatch.setattr(KeyValueAdapter, "forward", lambda self, x: (calls.append(1), forward(self, x))[1])
    with torch.no_grad():
        visuals = encode_visual(model, torch.randn(2, 1, 3, 32, 32))
        context = visual_context(model, visuals)
        generate_texts(model, tokenizer, context, beams=beams, longest=12, shortest=11)
    assert len(calls) == 2, "keys and values, once for all eleven tokens"
