"""The losses as public functions: they are those that training minimises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipForQuestionAnswering

import uniadapter as ua
from squares import save_tokenizer
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.config import ModelConfig, ObjectiveConfig
from uniadapter.data.batches import Batch
from uniadapter.model.tokens import TokenBatch
from uniadapter.tasks.answering import AnswerLoss
from uniadapter.tasks.captioning import CaptionLoss
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo

PIXELS = torch.randn(4, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MOMENT = StepInfo(0, 0, 0, 1)
PLACES = torch.arange(4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_a_loop_of_ones_own_has_the_gradients_of_training() -> None:
    model = tiny_model()
    adapters = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=3))
    randomise(adapters)
    ids, mask = tiny_texts(4)
    plain = ObjectiveConfig(queue_size=0, momentum=0.0, alpha=0.0, matching=False)
    task = RetrievalLoss(model, None, ModelConfig(), plain)
    losses = task.losses(PIXELS, TokenBatch(ids, mask), PLACES, PLACES, MOMENT)
    losses["loss"].backward()
    expected = {name: p.grad.clone() for name, p in adapters.named_parameters() if p.grad is not None}
    adapters.zero_grad()
    visuals, texts = ua.encode_visual(model, PIXELS), ua.encode_text(model, ids, mask)
    itc = ua.contrastive_loss(visuals.feature, texts.feature, PLACES)
    assert torch.equal(itc, losses["contrastive"])
    itc.backward(retain_graph=True)
    for name, gradient in expected.items():
        torch.testing.assert_close(dict(adapters.named_parameters())[name].grad, gradient)
    pairs = ua.hard_negative_pairs(visuals.feature, texts.feature, generator=torch.Generator().manual_seed(0))
    again = ua.hard_negative_pairs(visuals.feature, texts.feature, PLACES, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pairs.pairs, again.pairs)
    assert pairs.pairs.shape == (12, 2)
    assert pairs.labels.tolist() == [1] * 4 + [0] * 8
    assert bool((pairs.pairs[4:, 0] != pairs.pairs[4:, 1]).all())
    logits = ua.match(model, texts, visuals, pairs.pairs)
    itm = ua.matching_loss(logits, pairs.labels)
    assert float(itm.detach()) == pytest.approx(float(F.cross_entropy(logits, pairs.labels).detach()))
    itm.backward()
    assert all(p.grad is not None for p in adapters.parameters())


def test_rows_of_one_id_are_no_negatives() -> None:
    features = F.normalize(torch.randn(4, 8), dim=1)
    same = ua.hard_negative_pairs(features, features, torch.zeros(4))
    assert (len(same.pairs), same.left_out) == (4, 8)
    two = torch.tensor([5, 5, 6, 6])
    found = ua.hard_negative_pairs(features, features, two)
    rows = found.pairs[4:]
    assert bool((two[rows[:, 0]] != two[rows[:, 1]]).all())
    assert float(ua.contrastive_loss(features, features, two)) > float(ua.contrastive_loss(features, features))


def test_momentum_and_queue_are_more_of_the_gallery() -> None:
    visual, text = (F.normalize(torch.randn(4, 8), dim=1) for _ in range(2))
    queue = ua.FeatureQueue(16, 8)
    plain = ua.contrastive_loss(visual, text)
    assert torch.equal(plain, ua.contrastive_loss(visual, text, momentum=(visual, text), queue=ua.FeatureQueue(0, 8)))
    assert float(ua.contrastive_loss(visual, text, queue=queue)) > float(plain)
    soft = ua.contrastive_loss(visual, text, momentum=(visual, text), queue=queue, alpha=0.4)
    assert not torch.equal(soft, ua.contrastive_loss(visual, text, momentum=(visual, text), queue=queue))


def test_answers_and_captions_are_those_of_training(tokenizer: Any) -> None:
    model = tiny_model(BlipForQuestionAnswering)
    asked, said = ["a square", "the picture of a", "square", "of"], [{"red": 0.7, "blue": 0.3}, {"red": 1.0}] * 2
    batch = Batch(PIXELS, asked, PLACES, PLACES, PLACES, said)
    expected = AnswerLoss(model, tokenizer, ModelConfig())(batch, MOMENT)["loss"]
    visuals = ua.encode_visual(model, PIXELS)
    assert torch.equal(ua.answer_loss(model, tokenizer, visuals, asked, said), expected)
    one = ua.answer_loss(model, tokenizer, visuals, asked, ["red"] * 4)
    assert torch.equal(one, ua.answer_loss(model, tokenizer, visuals, asked, [{"red": 1.0}] * 4))
    assert one.requires_grad
    captioner = tiny_model(BlipForConditionalGeneration)
    batch = Batch(PIXELS, ["a red square", "red", "blue", "a grey square"], PLACES, PLACES, PLACES)
    settings = ModelConfig(max_tokens=30)
    expected = CaptionLoss(captioner, tokenizer, settings, "a picture of ")(batch, MOMENT)["loss"]
    visuals = ua.encode_visual(captioner, PIXELS)
    found = ua.caption_loss(captioner, tokenizer, visuals, batch.captions, max_tokens=30)
    assert torch.equal(found, expected)
    twice = ua.caption_loss(captioner, tokenizer, visuals, batch.captions * 2, rows=PLACES.repeat(2), max_tokens=30)
    assert torch.allclose(twice, expected, rtol=1e-5)


def test_what_does_not_fit_together_is_refused(tokenizer: Any) -> None:
    features = F.normalize(torch.randn(4, 8), dim=1)
    for arguments, more, said in (
        ((features, features[:3]), {}, r"both be \[B, e\]"), ((features[0], features[0]), {}, r"both be \[B, e\]"),
        ((features, features, PLACES[:2]), {}, "ids is"), ((features, features, PLACES, 0.0), {}, "temperature is 0"),
        ((features[:0], features[:0]), {}, r"both be"), ((features, features), {"alpha": 0.4}, "momentum="),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            ua.contrastive_loss(*arguments, **more)
        if not more:
            with pytest.raises(ValueError, match=said):
                ua.hard_negative_pairs(*arguments)
    model = tiny_model(BlipForQuestionAnswering)
    visuals = ua.encode_visual(model, PIXELS)
    for questions, answers, rows, said in (
        ([], [], None, "no question"), (["a"], ["red"], None, "rows="), (["a"] * 4, ["red"], None, "1 answers"),
        (["a"] * 4, ["red"] * 4, PLACES[:2], "one visual for each"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            ua.answer_loss(model, tokenizer, visuals, questions, answers, rows)


def test_trainable_parameters_are_printed_as_peft_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model()
    built = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=3))
    ua.print_trainable_parameters(model)
    own, everything = sum(p.numel() for p in built.parameters()), sum(p.numel() for p in model.parameters())
    line = f"trainable params: {own:,d} || all params: {everything:,d} || trainable%: {100 * own / everything:.4f}\n"
    assert capsys.readouterr().out == line
