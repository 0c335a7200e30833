"""The texts that the embedded base is pre-trained on: what is said is true, what is made false is false."""

from __future__ import annotations

import random
from collections import Counter

import pytest

pytest.importorskip("world", reason="the scripts that build the assets come with the repository alone")
from world.pictures.concepts import read_concepts
from world.stages.bank import layout
from world.texts.captions import ABOVE, PRETRAINING, REVERSED, Captioner, Style
from world.texts.names import KINDS, NAMES, NUMBERS, Lexicon
from world.texts.questions import KINDS_ASKED, Asker
from world.texts.truths import OTHER_COLOURS, Claim, Scene, alterations, falsified
from world.texts.vocabulary import Vocabulary, gather, make_tokenizer
from world.texts.writer import TEXTS, Writer

CONCEPTS = read_concepts()
LEXICON = Lexicon(CONCEPTS)
SEEN = [number for number, concept in enumerate(CONCEPTS) if not concept.novel]
NUMBER = {concept.name: number for number, concept in enumerate(CONCEPTS)}
CAT, CAR, PIZZA, STAR = (NUMBER[name] for name in ("cat", "automobile", "pizza", "star"))
CROSS = Scene([(CAT, 20.0, 70.0), (CAR, 74.0, 72.0), (PIZZA, 24.0, 26.0)], "blue")


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    colours = ["", *OTHER_COLOURS]
    return [Scene(layout(SEEN, LEXICON, rng.randint(1, 4), rng), rng.choice(colours)) for _ in range(count)]


def test_every_concept_has_names_and_no_name_is_anothers() -> None:
    assert set(NAMES) == {concept.name for concept in CONCEPTS}
    owners = Counter(name.removeprefix("*") for names in NAMES.values() for name in set(names.split("|")))
    assert {name for name, owned in owners.items() if owned > 1} <= {"ice cream"}  # with and without an article
    several = sum(len(set(n.replace("*", "").split("|"))) > 1 for n in NAMES.values())
    assert several > 0.6 * len(NAMES)


def test_names_that_hold_one_another_are_alike() -> None:
    assert NUMBER["police car"] in LEXICON.alike[CAR]
    assert CAR in LEXICON.alike[NUMBER["police car"]]
    assert LEXICON.alike[CAT] == {CAT}


def test_truth_of_a_scene_that_was_looked_at() -> None:
    assert CROSS.sides(CAT) == {"left", "bottom"}
    assert CROSS.direction(CAT, CAR, "x") == "left"
    assert CROSS.direction(CAT, CAR, "y") == ""
    assert CROSS.direction(CAT, PIZZA, "y") == "below"
    true = [
        Claim((CAT, CAR), "left"), Claim((PIZZA, CAT), "above"), Claim((CAR,), places=("bottom right",)),
        Claim((CAR, CAT), count=3, ground="blue"),
    ]  # fmt: skip
    false = [
        Claim((CAR, CAT), "left"), Claim((PIZZA, CAT), "below"), Claim((CAR,), places=("bottom left",)),
        Claim((CAR, CAT), count=2), Claim(ground="red"), Claim((STAR,)), Claim((CAT, STAR), "left"),
    ]  # fmt: skip
    assert all(claim.true_of(CROSS) and not claim.false_of(CROSS, LEXICON) for claim in true)
    assert all(claim.false_of(CROSS, LEXICON) and not claim.true_of(CROSS) for claim in false)
    unclear = Claim((CAT, CAR), "above")  # of one height
    assert not unclear.true_of(CROSS)
    assert not unclear.false_of(CROSS, LEXICON)


@pytest.mark.parametrize("style", [PRETRAINING, ABOVE, REVERSED, Style("xy", 0.3)])
def test_captions_are_true_and_falsehoods_false(style: Style) -> None:
    captioner, rng, seen = Captioner(LEXICON, style), random.Random(0), Counter()
    for scene in scenes(400):
        claim = captioner.claim(scene, rng)
        assert claim is not None
        assert claim.true_of(scene)
        for how in set(alterations(claim)):
            false = falsified(claim, how, scene, LEXICON, SEEN, rng)
            if false is not None:
                seen[how] += 1
                assert false.false_of(scene, LEXICON), (scene, claim, false, how)
                assert not false.true_of(scene)
                assert len(false.things) == len(claim.things)
    assert set(seen) == {"object", "swapped", "turned", "exchanged", "moved", "count", "ground"}


def test_pre_training_says_nothing_that_the_tasks_must_teach() -> None:
    writer, rng = Writer(LEXICON, SEEN), random.Random(0)
    texts = writer.step(scenes(600), rng)
    words = {word for some in texts.sayings for saying in some for word in saying.words}
    assert not words & {"above", "below", "over", "under", "its", "higher", "lower", "beneath"}
    assert {"left", "right", "top", "bottom", *NUMBERS} <= words
    novel = {n for n, concept in enumerate(CONCEPTS) if concept.novel}
    assert not novel & {c for some in texts.sayings for saying in some for c in saying.named}


def test_a_falsehood_is_worded_as_the_truth_is() -> None:
    """What a text alone tells must be no hint: lengths differ only by the names."""
    writer, rng = Writer(LEXICON, SEEN), random.Random(0)
    for scene in scenes(200):
        pair = writer.pair(scene, rng)
        assert pair is not None
        true, false, how = pair
        assert true.text != false.text
        plain = [
            [w for w, c in zip(s.words, s.named, strict=True) if c < 0 and w not in ("a", "an", "the")]
            for s in (true, false)
        ]
        if how in ("object", "swapped", "exchanged"):
            assert plain[0] == plain[1]
        if how in ("turned", "moved", "count", "ground"):
            assert true.named.count(-1) - false.named.count(-1) in (-1, 0, 1) or how == "moved"


def test_marks_point_at_the_words_that_say_so() -> None:
    writer, rng = Writer(LEXICON, SEEN), random.Random(1)
    for scene in scenes(300):
        for saying in writer.step([scene], rng).sayings[0]:
            assert len(saying.words) == len(saying.named)
            for place, word in enumerate(saying.words):
                if saying.named[place] >= 0:
                    assert any(word in name for name in LEXICON.names[saying.named[place]])
            for place, _, _ in saying.turns:
                assert saying.words[place] in ("left", "right")
            for place, _ in saying.spots:
                assert saying.words[place] in ("left", "right", "top", "bottom")
            for place, kind in saying.kinds:
                assert saying.words[place] in KINDS[kind]
            for place in saying.grounds:
                assert saying.words[place] in OTHER_COLOURS
            for place, _ in saying.looks:
                assert saying.words[place] in ("what", "which")


@pytest.mark.parametrize("kind", KINDS_ASKED)
def test_answers_are_true(kind: str) -> None:
    asker, rng = Asker(LEXICON, SEEN), random.Random(0)
    for scene in scenes(200):
        question = asker(scene, rng, kind)
        if question is None:
            continue
        answer, text = asker.answers[question.answer], question.saying.text
        named = [concept for concept in question.saying.named if concept >= 0]
        if kind == "thing":
            assert answer == ("yes" if named[0] in scene.concepts else "no"), text
        elif kind == "count":
            assert answer == NUMBERS[len(scene.things) - 1]
        elif kind == "relation":
            ((place, a, b),) = question.saying.turns
            assert (scene.direction(a, b, "x") == question.saying.words[place]) == (answer == "yes")
        elif kind in ("where", "ground"):
            assert answer in (scene.sides(named[0]) if kind == "where" else {scene.ground})
        elif kind in ("beside", "which", "corner"):
            assert question.answer - asker.first_name in scene.concepts


def test_yes_and_no_are_even() -> None:
    asker, rng = Asker(LEXICON, SEEN), random.Random(0)
    for kind in ("thing", "relation", "place"):
        asked = [asker(scene, rng, kind) for scene in scenes(800)]
        answers = [question.answer for question in asked if question]
        assert abs(answers.count(0) / len(answers) - 0.5) < 0.06


def test_the_vocabulary_is_committed_and_has_every_word() -> None:
    vocabulary, tokenizer = Vocabulary(), make_tokenizer()
    assert vocabulary.words == gather()
    writer, rng = Writer(LEXICON, SEEN), random.Random(2)
    sayings = [saying for some in writer.step(scenes(200), rng).sayings for saying in some]
    assert len(sayings) == 200 * TEXTS
    texts = [saying.text for saying in sayings] + ["a zebra above a puppy, and nothing else!"]
    ids, mask = vocabulary.encode([saying.words for saying in sayings])
    made = tokenizer(texts, padding=True, return_tensors="pt")
    assert (made["input_ids"][:-1, : ids.shape[1]] == ids).all()
    assert (made["attention_mask"][:-1, : ids.shape[1]] == mask).all()
    assert vocabulary.id["[UNK]"] not in made["input_ids"][-1]
    assert tokenizer.convert_tokens_to_ids("[ENC]") == 6
