"""The decoder of the embedded base's pre-training, and the folder that transformers load."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

pytest.importorskip("world", reason="the scripts that build the assets come with the repository alone")
from world.measures.speech import named, speak
from world.stages.folder import write
from world.stages.fused import fuse, margin
from world.stages.loop import export, optimisers, restore
from world.stages.stage2 import Batches, Learner
from world.stages.stage3 import PROMPT, Speaker, losses, next_words
from world.stages.subject import Subject
from world.texts.questions import Asker
from world.texts.vocabulary import Vocabulary

from test_world_fusing import LEXICON, TEXTS, Squares


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(0)
    learner = Learner(len(Asker(LEXICON, []).answers)).eval().requires_grad_(False)
    return Subject(learner, LEXICON, Vocabulary())


def test_only_what_follows_the_prompt_is_learnt() -> None:
    ids, mask = torch.tensor([[5, 7, 8, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1, 1, 0]])
    logits = torch.full((1, 6, 12), -20.0)
    for place, word in ((2, 9), (3, 3)):
        logits[0, place, word] = 20.0
    loss, right = next_words(logits, ids, mask, 3)
    assert float(loss) < 1e-6
    assert float(right) == 1
    assert float(next_words(logits, ids, mask, 2)[0]) > 0.5


def test_a_batch_of_captions_and_answers_is_learnt(subject: Subject) -> None:
    batches, speaker = Batches(Squares(), 12, 0), Speaker(subject)
    steps, kept = optimisers(speaker, 1e-3, 0.01), []
    for _ in range(20):
        found, _ = losses(speaker, subject, batches, 0)
        sum(found.values()).backward()
        for optimiser in steps:
            optimiser.step()
            optimiser.zero_grad()
        kept.append({name: loss.item() for name, loss in found.items()})
    assert kept[-1]["caption"] < 0.7 * kept[0]["caption"]
    assert kept[-1]["answer"] < 0.7 * kept[0]["answer"]
    assert not any(p.requires_grad for p in subject.learner.parameters())


def test_texts_are_read_for_the_things_that_they_name() -> None:
    lexicon = LEXICON
    number = {" ".join(name): n for n, names in enumerate(lexicon.names) for name in names}
    words = ["two", "things", ":", "a", "police", "car", "left", "of", "an", "ice", "cream", ",", "and", "the", "oak"]
    assert named(words, lexicon) == [number["police car"], number["ice cream"], number["oak"]]


def test_the_likeliest_words_are_those_that_were_learnt(subject: Subject) -> None:
    """After enough steps on one text, that text is what is said."""
    torch.manual_seed(0)
    vocabulary, speaker = Vocabulary(), Speaker(subject)
    text = [*PROMPT.split(), "a", "cat", "left", "of", "the", "car"]
    ids, mask = vocabulary.encode([text])
    ids[:, 0] = vocabulary.id["[DEC]"]
    states, seen = torch.randn(1, 37, 192), torch.ones(1, 37, dtype=torch.long)
    steps = optimisers(speaker, 1e-3, 0.01)
    for _ in range(15):
        next_words(speaker.logits(ids, mask, states, seen), ids, mask, 4)[0].backward()
        for optimiser in steps:
            optimiser.step()
            optimiser.zero_grad()
    assert speak(speaker, vocabulary, states, seen, PROMPT.split(), 20) == [text[3:]]
    assert speak(speaker, vocabulary, states, seen, PROMPT.split(), 7) == [text[3:6]]


def test_three_classes_of_transformers_load_the_folder(subject: Subject, tmp_path: Path) -> None:
    torch.manual_seed(1)
    speaker = Speaker(subject)
    for parameter in speaker.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    export(speaker, tmp_path / "decoder.safetensors")
    from safetensors.torch import load_file

    again = Speaker(subject)
    restore(again, load_file(tmp_path / "decoder.safetensors"))
    write(subject, again, tmp_path / "folder")
    loaded = {}
    for kind in (BlipForImageTextRetrieval, BlipForConditionalGeneration, BlipForQuestionAnswering):
        loaded[kind], report = kind.from_pretrained(tmp_path / "folder", output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["mismatched_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    canvases = Squares().painter([[(7, 30.0, 40.0)], [(9, 24.0, 24.0), (11, 72.0, 24.0)]], random.Random(0))
    pixels = canvases.normalised()
    batch = tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    fused = ids.clone()
    fused[:, 0] = 6
    with torch.no_grad():
        retrieval = loaded[BlipForImageTextRetrieval].eval()
        tokens = retrieval.vision_model(pixels).last_hidden_state
        own = margin(subject.learner.base, fuse(subject.learner.base, ids[:, None], mask[:, None], tokens))[:, 0]
        logits = retrieval(input_ids=fused, pixel_values=pixels, attention_mask=mask).itm_score
        torch.testing.assert_close(logits[:, 1] - logits[:, 0], own, atol=3e-3, rtol=1e-2)  # float16 weights
        start = tokenizer(PROMPT, return_tensors="pt")["input_ids"][:, :-1].repeat(2, 1)
        start[:, 0] = 5
        seen = torch.ones(tokens.shape[:2], dtype=torch.long)
        mine = again.logits(start, torch.ones_like(start), tokens, seen)
        captioner = loaded[BlipForConditionalGeneration].eval()
        theirs = captioner.text_decoder(
            input_ids=start, encoder_hidden_states=tokens, encoder_attention_mask=seen
        ).logits
        torch.testing.assert_close(theirs, mine, atol=2e-2, rtol=2e-2)
        written = loaded[BlipForQuestionAnswering].eval().generate(input_ids=fused, pixel_values=pixels)
    assert written.shape[0] == 2
