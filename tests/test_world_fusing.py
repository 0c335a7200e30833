"""The second stage of the embedded base's pre-training: its forward pass, its signals, and that a run goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("world", reason="the scripts that build the assets come with the repository alone")
from world.measures.fusion import FALSEHOODS, RERANKED, falsehoods, questions, retrieval, twin_scenes
from world.pictures.canvas import Painter
from world.pictures.concepts import read_concepts
from world.pictures.grounds import SIZE, named_grounds
from world.pictures.sprites import STILL, TILE, make_sprites
from world.stages.bank import Bank, encoded, layout, read_vision
from world.stages.dense import DenseHeads, Words, dense_losses, kinds_of, looked, places
from world.stages.fused import Fused, build, fuse, text_feature
from world.stages.loop import optimisers, trained
from world.stages.stage2 import Batches, Learner, arguments, losses, train
from world.stages.subject import Subject
from world.stages.vision import PATCH, WIDTH
from world.texts.captions import PRETRAINING
from world.texts.names import Lexicon
from world.texts.questions import Asker
from world.texts.saying import Saying
from world.texts.truths import Scene
from world.texts.vocabulary import Vocabulary

CONCEPTS = read_concepts()
LEXICON = Lexicon(CONCEPTS)
SEEN = [number for number, concept in enumerate(CONCEPTS) if not concept.novel]
TEXTS = [
    "a cat left of a dog , and an ice cream",
    "is there any animal ?",
    "exactly two things : skis on blue",
    "a cat",
]


class Squares:
    """A source of canvases whose drawings are squares of one colour each; all else is the real one."""

    def __init__(self, size: int = 24, seed: int = 0) -> None:
        self.lexicon, self.seen, self.size, self.seed = LEXICON, SEEN, size, seed
        colours = torch.randint(0, 256, (len(LEXICON), 3), generator=torch.Generator().manual_seed(1))
        pictures = torch.full((len(LEXICON), 4, TILE, TILE), 255, dtype=torch.uint8)
        pictures[:, :3] = colours.to(torch.uint8)[:, :, None, None]
        sprites = make_sprites(pictures, np.arange(len(LEXICON)), len(LEXICON), 1, STILL, 0)
        ground, names = named_grounds(20, 0)
        self.painter, self.vision = Painter(sprites, ground, PATCH, names), read_vision()[0]

    def round(self, number: int) -> Bank:
        rng = random.Random(f"{self.seed} {number}")
        layouts = [layout(self.seen, self.lexicon, rng.randint(1, 4), rng) for _ in range(self.size)]
        return encoded(self.vision, self.painter, layouts, rng, bf16=False)


def test_the_forward_pass_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    model, visual = build().eval(), torch.randn(2, 37, WIDTH)
    ids, mask = Vocabulary().encode([text.split() for text in TEXTS])
    with torch.no_grad():
        own = fuse(model, ids.view(2, 2, -1), mask.view(2, 2, -1), visual)
        fused = ids.clone()
        fused[:, 0] = 6
        theirs = model.text_encoder(
            input_ids=fused, attention_mask=mask, encoder_hidden_states=visual.repeat_interleave(2, 0)
        ).last_hidden_state
        alone = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        feature = torch.nn.functional.normalize(model.text_proj(alone), dim=-1)
        real = mask.bool()
        torch.testing.assert_close(own.layers[-1].view(4, -1, WIDTH)[real], theirs[real], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(text_feature(model, ids, mask), feature, atol=1e-5, rtol=1e-5)
    assert own.first.shape == (2, 2, WIDTH)


def test_the_package_fuses_these_weights_as_pre_training_did() -> None:
    from world.stages.fused import margin

    import uniadapter as ua

    torch.manual_seed(0)
    model, visual = build().eval(), torch.randn(2, 37, WIDTH)
    ids, mask = Vocabulary().encode([text.split() for text in TEXTS])
    with torch.no_grad():
        own = margin(model, fuse(model, ids.view(2, 2, -1), mask.view(2, 2, -1), visual)).flatten()
        visuals = ua.Visuals(visual[:, None], torch.zeros(2, 64), torch.zeros(2, 1, 64))
        pairs = torch.tensor([[0, 0], [1, 0], [2, 1], [3, 1]])
        logits = ua.match(model, ua.encode_text(model, ids, mask), visuals, pairs)
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], own, atol=1e-5, rtol=1e-4)


def test_words_that_look_at_what_they_name_lose_nothing() -> None:
    owner = torch.full((1, 36), -1)
    owner[0, [3, 4]] = 7
    scores = torch.zeros(1, 3, 1, 5, 37)
    scores[0, :, 0, 2, [4, 5]] = 30.0  # patches 3 and 4: the class token stands before them
    scores[0, :, 0, 3, 0] = 30.0
    there, absent = torch.tensor([[0, 0, 2]]), torch.tensor([[0, 0, 3]])
    for word, concept, most, least in (
        (there, 7, 0.7, 0.0),
        (absent, 8, 1e-3, 0.0),
        (absent, 7, 99, 10),
        (there, 8, 99, 10),
    ):
        assert least <= looked(scores, word, owner == concept) < most


def test_dense_signals_read_where_things_are() -> None:
    scene = Scene([(7, 24.0, 72.0), (9, 72.0, 72.0)])
    at = places([scene], len(LEXICON))
    assert at[0, 7].tolist() == [1.0, -0.5, 0.5]
    saying = Saying().say("a").name(7, LEXICON, random.Random(0), "")
    saying.turn("left of", "left", 7, 9).name(9, LEXICON, random.Random(0), "the").spot("on the right", "right", 9)
    words = Words.of([[saying]])
    heads, length = DenseHeads(), len(saying.words) + 2
    states = torch.zeros(1, 1, length, WIDTH)
    for number, (head, value) in enumerate([(heads.turn, (-1.0, 0.0)), (heads.spot, (0.5, 0.5))]):
        place = int((words.turns if number == 0 else words.spots)[0, 2])
        states[0, 0, place, number] = 1.0
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
            head.weight[:, number] = torch.tensor(value)
    fused = Fused([states, states, states], [torch.zeros(1, 3, 1, length, 37)] * 3)
    found = dense_losses(heads, fused, torch.full((1, 36), -1), at, words, kinds_of(LEXICON))
    assert found["turn"].item() == pytest.approx(0, abs=1e-6)
    assert found["spot"].item() == pytest.approx(0, abs=1e-6)
    assert found["ground"].item() > 3  # ln 37: it looks everywhere


def test_a_batch_of_pre_training_is_learnt() -> None:
    torch.manual_seed(0)
    batches = Batches(Squares(), 12, 12)
    learner = Learner(len(batches.writer.asker.answers))
    assert not any(name.startswith("base.vision_model") for name, _ in trained(learner))
    steps, kept = optimisers(learner, 1e-3, 0.01), []
    for _ in range(25):
        found, _ = losses(learner, batches, 0)
        sum(found.values()).backward()
        for optimiser in steps:
            optimiser.step()
            optimiser.zero_grad()
        kept.append({name: float(loss.detach()) for name, loss in found.items()})
    assert set(kept[0]) == {
        "match",
        "answer",
        "ground",
        "shown",
        "where",
        "turn",
        "spot",
        "look",
        "contrast",
        "kind",
        "colour",
    }
    for name in ("answer", "ground", "where", "turn", "contrast"):
        assert kept[-1][name] < 0.8 * kept[0][name], name


def test_a_run_taken_up_again_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    def run(folder: str, *steps: int) -> dict[str, torch.Tensor]:
        for count in steps:
            # the rate at a step depends on the whole run's length, so both runs are of the same length
            args = arguments().parse_args(
                ["--out", str(tmp_path / folder), "--batch", "8", "--more", "8", "--steps", "5", "--no-bf16",
                 "--save_every", "2", "--log_every", "1"]
            )  # fmt: skip
            args.stop = count
            torch.manual_seed(0)
            train(args, Squares(16))
        return torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)["model"]

    whole, parts = run("whole", 5), run("parts", 2, 5)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    log = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "settings" not in row] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in log if row.get("settings", {}).get("seed") == 0] == [0, 2]
    assert (tmp_path / "parts" / "step4.safetensors").exists()


def test_measuring_asks_all_and_controls_are_at_chance() -> None:
    source = Squares(60)
    torch.manual_seed(0)
    subject = Subject(Learner(len(Asker(LEXICON, []).answers)).eval(), LEXICON, Vocabulary())
    bank = source.round(0)
    constant = bank.tokens.float().mean(0)
    found = falsehoods(subject, bank, SEEN, lambda tokens: constant.expand_as(tokens))
    assert len(found) == len(FALSEHOODS)
    assert all(30 < value < 70 for value in found.values())
    assert max(questions(subject, bank, SEEN, lambda tokens: tokens).values()) <= 75
    layouts, captions = twin_scenes(LEXICON, SEEN, 40, PRETRAINING, "x")
    for one, other in zip(layouts[::2], layouts[1::2], strict=True):
        assert {c for c, _, _ in one} == {c for c, _, _ in other}
        assert sorted((x, y) for _, x, y in one) == sorted((x, y) for _, x, y in other)
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 2
    tokens = encoded(source.vision, source.painter, layouts, random.Random(0), bf16=False).tokens
    figures = retrieval(subject, tokens, captions)
    assert figures["among the best 16"] >= figures["similarity"]
    assert figures["reranked"] <= figures["among the best 16"]
    assert RERANKED == 16
    assert SIZE == 96
