"""Likelihoods of answers: the tree equals one answer at a time, and padding changes nothing."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

from tiny import randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig
from uniadapter.model.blip.decoder import decode, question_context, text_nll, visual_context
from uniadapter.model.blip.ranking import rank_answers
from uniadapter.model.encoding import encode_visual
from uniadapter.model.features import AnswerTree, Context

DEC, SEP = 62, 3


def asking(seed: int, questions: int = 4, decoder: str = "shared", **sizes: int) -> tuple[torch.nn.Module, Context]:
    """A tiny model with an adapter, and questions of different lengths about two videos."""
    model = tiny_model(BlipForQuestionAnswering, seed=seed, **sizes)
    config = AdapterConfig(bottleneck=5, key_value=3, temporal_frames=2, decoder=decoder)  # type: ignore[arg-type]
    randomise(add_adapter(model, config))
    pixels = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    ids, mask = tiny_texts(questions, longest=9, seed=seed)
    rows = torch.arange(questions) % 2
    with torch.no_grad():
        return model.eval(), question_context(model, encode_visual(model, pixels), ids, mask, rows)


def answers(count: int, seed: int) -> list[list[int]]:
    """Distinct answers of one to four tokens out of few, so that many begin alike, some being the start of others."""
    rng = random.Random(seed)
    found: set[tuple[int, ...]] = set()
    while len(found) < count:
        found.add(tuple(rng.randrange(4, 9) for _ in range(rng.randint(1, 4))))
    return [[DEC, *answer, SEP] for answer in sorted(found)]


def one_at_a_time(model: torch.nn.Module, context: Context, texts: list[list[int]]) -> Tensor:
    """The specification: [Q, A], each answer of each question decoded by itself, without padding."""
    out = torch.empty(len(context), len(texts))
    for q in range(len(context)):
        length = int(context.mask[q].sum())
        own = Context(context.states[q : q + 1, :length], context.mask[q : q + 1, :length])
        for a, text in enumerate(texts):
            ids = torch.tensor([text])
            states = decode(model, own, torch.zeros(1, dtype=torch.long), ids)
            logits = model.text_decoder.cls(states[0, :-1])
            smooth = model.config.text_config.label_smoothing
            out[q, a] = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum", label_smoothing=smooth)
    return out


@pytest.mark.parametrize("decoder", ["shared", "separate"])
@pytest.mark.parametrize(("seed", "sizes"), [(0, {}), (1, {"width": 24, "heads": 2}), (2, {"text_layers": 3})])
@torch.no_grad()
def test_the_tree_gives_what_one_answer_at_a_time_gives(seed: int, sizes: dict[str, int], decoder: str) -> None:
    model, context = asking(seed, decoder=decoder, **sizes)
    model.config.text_config.label_smoothing = 0.1 * (seed > 0)
    texts = answers(40, seed)
    expected = one_at_a_time(model, context, texts)
    chosen, nll = rank_answers(model, context, AnswerTree.of(texts))
    assert (nll - expected.gather(1, chosen)).abs().max() < 1e-4
    assert torch.equal(chosen.sort(dim=1).values, torch.arange(40).expand(len(context), -1))
    assert bool((nll.diff(dim=1) >= 0).all())
    rows = torch.arange(len(context)).repeat_interleave(40)
    ids = torch.zeros(40, max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
    batched = text_nll(model, context, rows, ids.repeat(len(context), 1), mask.repeat(len(context), 1))
    assert (batched.view(len(context), 40) - expected).abs().max() < 1e-4


@torch.no_grad()
def test_the_cut_takes_the_answers_whose_first_token_is_likeliest() -> None:
    model, context = asking(3)
    texts = [[DEC, first, *rest, SEP] for first, rest in zip(range(4, 34), [[], [5], [6, 7]] * 10, strict=True)]
    tree = AnswerTree.of(texts)
    chosen, nll = rank_answers(model, context, tree, k=7)
    assert chosen.shape == nll.shape == (len(context), 7)
    rows = torch.arange(len(context))
    first = model.text_decoder.cls(decode(model, context, rows, torch.full((len(context), 1), DEC))[:, 0])
    for q in range(len(context)):
        best = first[q, tree.ids[:, 1]].topk(7).indices
        assert set(chosen[q].tolist()) == set(best.tolist())
    expected = one_at_a_time(model, context, texts).gather(1, chosen)
    assert (nll - expected).abs().max() < 1e-4
    assert rank_answers(model, context, tree, k=999)[0].shape == (len(context), 30)


@torch.no_grad()
def test_logits_in_parts_are_the_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, context = asking(4)
    tree = AnswerTree.of(answers(60, 4))
    whole = rank_answers(model, context, tree)
    monkeypatch.setattr("uniadapter.model.blip.ranking.LOGIT_ELEMENTS", 64 * 3)
    parts = rank_answers(model, context, tree)
    assert torch.equal(whole[0], parts[0])
    assert (whole[1] - parts[1]).abs().max() < 1e-5


@torch.no_grad()
def test_a_padded_question_gets_what_it_gets_alone() -> None:
    model, context = asking(5, questions=6)
    tree = AnswerTree.of(answers(12, 5))
    together = torch.empty(6, 12).scatter_(1, *rank_answers(model, context, tree))
    for q in range(6):
        length = int(context.mask[q].sum())
        own = Context(context.states[q : q + 1, :length], context.mask[q : q + 1, :length])
        alone = torch.empty(1, 12).scatter_(1, *rank_answers(model, own, tree))
        assert (together[q] - alone[0]).abs().max() < 1e-5
    junk = Context(context.states.masked_fill(context.mask[..., None] == 0, 1e3), context.mask)
    assert torch.equal(torch.empty(6, 12).scatter_(1, *rank_answers(model, junk, tree)), together)


@torch.no_grad()
def test_a_caption_decoder_reads_all_tokens_of_a_video() -> None:
    model = tiny_model(BlipForConditionalGeneration, seed=1)
    randomise(add_adapter(model, AdapterConfig(bottleneck=5, key_value=3)))
    visuals = encode_visual(model, torch.randn(3, 2, 3, 32, 32))
    context = visual_context(model, visuals)
    assert context.states.shape == (3, 10, 32)
    ids = torch.tensor([[DEC, 5, 6, SEP], [DEC, 7, SEP, 0], [DEC, 5, 8, SEP]])
    ours = decode(model, context, torch.tensor([2, 0, 1]), ids)
    for row, (visual, length) in enumerate([(2, 4), (0, 3), (1, 4)]):
        theirs = model.text_decoder.bert(
            input_ids=ids[row : row + 1, :length], encoder_hidden_states=context.states[visual : visual + 1],
            is_decoder=True,
        ).last_hidden_state  # fmt: skip
        assert (ours[row, :length] - theirs[0]).abs().max() < 1e-5


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="needs answers"):
        AnswerTree.of([])
    with pytest.raises(ValueError, match="needs answers"):
        AnswerTree.of([[DEC]])
    model = tiny_model(BlipForImageTextRetrieval)
    with pytest.raises(TypeError, match="no text decoder"):
        rank_answers(model, Context(torch.zeros(1, 2, 32), torch.ones(1, 2)), AnswerTree.of([[DEC, 4, SEP]]))
