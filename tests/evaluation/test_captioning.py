"""CIDEr and BLEU-4 against values worked by hand and a naive CIDEr; the tokenizers; what goes wrong."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import shutil
import subprocess
from collections import Counter
from typing import Any

import pytest

from uniadapter.data.layouts.records import DataError
from uniadapter.evaluation import captioning
from uniadapter.evaluation.captioning import caption_scores, tokenize_ptb, tokenize_simple

HAS_PACKAGE = importlib.util.find_spec("pycocoevalcap") is not None
needs_package = pytest.mark.skipif(not HAS_PACKAGE, reason="pycocoevalcap is not installed")
needs_java = pytest.mark.skipif(
    not HAS_PACKAGE or shutil.which("java") is None, reason="PTBTokenizer needs pycocoevalcap and java"
)

REFERENCES = {
    "a": ["a cat sleeps on the red sofa", "the cat is asleep on a sofa"],
    "b": ["two dogs run over wet grass", "a pair of dogs in the grass"],
    "c": ["an old train leaves the station"],
}


def ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def naive_cider(predictions: dict[str, str], references: dict[str, list[str]]) -> dict[str, float]:
    """CIDEr-D by its paper: tf-idf vectors of n-grams, clipped cosine, length penalty; mean over n and references."""
    scores = {}
    for key, caption in predictions.items():
        total = 0.0
        for reference, n in ((reference, n) for reference in references[key] for n in range(1, 5)):
            frequency = Counter(
                gram for each in references.values() for gram in set().union(*(ngrams(one, n) for one in each))
            )
            idf = {
                gram: math.log(len(references) / max(1, frequency[gram]))
                for gram in {**ngrams(caption, n), **ngrams(reference, n)}
            }
            given = {gram: count * idf[gram] for gram, count in ngrams(caption, n).items()}
            wanted = {gram: count * idf[gram] for gram, count in ngrams(reference, n).items()}
            lengths = math.sqrt(sum(v * v for v in given.values()) * sum(v * v for v in wanted.values()))
            product = sum(min(value, wanted.get(gram, 0.0)) * wanted.get(gram, 0.0) for gram, value in given.items())
            # the length is the number of 2-grams, as in the authors' code; the difference is that of words
            delta = max(len(caption.split()) - 1, 0) - max(len(reference.split()) - 1, 0)
            total += (product / lengths if lengths else 0.0) * math.exp(-(delta**2) / (2 * 6.0**2))
        scores[key] = 1000 * total / (4 * len(references[key]))
    return scores


@needs_package
def test_bleu_worked_by_hand() -> None:
    """Matches of 1..4 words: 5 of 6, 3 of 5, 2 of 4, 1 of 3; as long as the reference, so no penalty."""
    scores = caption_scores({1: "a b c d x f"}, {1: ["a b c d e f"]}, "simple")
    assert scores.bleu4 == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, rel=1e-6)


@needs_package
def test_bleu_of_a_short_set_worked_by_hand() -> None:
    """Over both pictures: 1-grams 4 + 5 of 4 + 5, 2-grams 3 + 4 of 3 + 4, … all right, but 9 words for 6 + 6."""
    scores = caption_scores({1: "a b c d", 2: "p q r s t"}, {1: ["a b c d e f"], 2: ["p q r s t u"]}, "simple")
    assert scores.bleu4 == pytest.approx(100 * math.exp(1 - 12 / 9), rel=1e-6)


@needs_package
def test_bleu_clips_counts_and_takes_the_closest_length() -> None:
    """The second "the" finds no partner: 5 of 6, 4 of 5, 3 of 4, 2 of 3; beside 6 words, 5 is closer than 8."""
    references = ["the cat sat on mats", "the cat sat on mats in a hall"]
    scores = caption_scores({1: "the the cat sat on mats"}, {1: references}, "simple")
    assert scores.bleu4 == pytest.approx(100 * (1 / 3) ** 0.25, rel=1e-6)


@needs_package
def test_cider_of_perfect_unique_captions_is_the_maximum() -> None:
    references = {key: each[:1] for key, each in REFERENCES.items()}
    scores = caption_scores({key: each[0] for key, each in references.items()}, references, "simple")
    assert scores.cider == pytest.approx(1000.0)
    assert scores.bleu4 == pytest.approx(100.0)
    assert scores.cider_each == pytest.approx((1000.0,) * 3)


@needs_package
def test_cider_of_three_words_lacks_a_quarter() -> None:
    """They have no 4-grams, so that one of the four similarities is 0."""
    scores = caption_scores({1: "big red cat", 2: "two old dogs"}, {1: ["big red cat"], 2: ["two old dogs"]}, "simple")
    assert scores.cider == pytest.approx(750.0)


@needs_package
def test_cider_of_a_single_picture_and_of_foreign_captions_is_nothing() -> None:
    assert caption_scores({1: "a cat on a sofa"}, {1: ["a cat on a sofa"]}, "simple").cider == 0.0
    swapped = {"a": "two dogs", "b": "old train", "c": ""}
    assert caption_scores(swapped, REFERENCES, "simple").cider == 0.0


@needs_package
def test_cider_equals_the_naive_one() -> None:
    predictions = {
        "a": "a cat on the red red sofa",
        "b": "the dogs run in the wet grass of the station",
        "c": "an old train",
    }
    expected = naive_cider(predictions, REFERENCES)
    scores = caption_scores(predictions, REFERENCES, "simple")
    assert scores.cider_each == pytest.approx(tuple(expected.values()))
    assert scores.cider == pytest.approx(sum(expected.values()) / 3)
    assert 0 < scores.cider < 1000


@needs_package
def test_order_of_pictures_and_references_does_not_matter() -> None:
    predictions = {"a": "a cat on the sofa", "b": "dogs run over the grass", "c": "the old train leaves"}
    scores = caption_scores(predictions, REFERENCES, "simple")
    turned = {key: list(reversed(REFERENCES[key])) for key in reversed(REFERENCES)}
    again = caption_scores(predictions, turned, "simple")
    assert again.cider == pytest.approx(scores.cider)
    assert again.bleu4 == pytest.approx(scores.bleu4)
    assert again.cider_each == pytest.approx(scores.cider_each[::-1])


@needs_package
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    caption_scores({1: "a b c d"}, {1: ["a b c d"]}, "auto")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "caption, words",
    [
        ("A Cat, on the (red) sofa.", "a cat on the red sofa"),
        ("it's a hot-dog -- 2.5 or 1,000?", "it's a hot-dog 2.5 or 1,000"),
        ("\"quoted\" and 'quoted'; `so`: {x}...", "quoted and quoted so x"),
        ("  Two\n lines\tÉ ", "two lines é"),
        ("...", ""),
        ("", ""),
    ],
)
def test_simple_tokenizer(caption: str, words: str) -> None:
    assert tokenize_simple([caption, "x"]) == [words, "x"]


@needs_java
def test_ptb_tokenizer_splits_as_published() -> None:
    captions = ["A dog's in the (park), can't go!", "", "Café — 1,000 \u2028 hot-dogs...", "x\r\ny"]
    words = ["a dog 's in the -lrb- park -rrb- ca n't go", "", "café 1,000 hot-dogs", "x y"]
    assert tokenize_ptb(captions) == words
    assert tokenize_ptb(["", ""]) == ["", ""]
    assert tokenize_ptb(["one"]) == ["one"]


@needs_java
def test_ptb_tokenizer_is_the_packages() -> None:
    captions = [one for each in REFERENCES.values() for one in each] + [
        'Don\'t; "stop" (here) & there: U.S. #1',
        "x -- y",
    ]
    package: Any = importlib.import_module("pycocoevalcap.tokenizer.ptbtokenizer")
    try:
        theirs = package.PTBTokenizer().tokenize({0: [{"caption": one} for one in captions]})[0]
    except OSError as error:
        pytest.skip(f"the package's own tokenizer cannot write into its folder: {error}")
    assert tokenize_ptb(captions) == theirs


@needs_java
def test_scores_name_the_tokenizer() -> None:
    """PTBTokenizer makes two words of "cannot", the simple one doesn't."""
    predictions, references = {1: "I cannot see the dog."}, {1: ["i can not see the dog"]}
    auto = caption_scores(predictions, references)
    ptb = caption_scores(predictions, references, "ptb")
    simple = caption_scores(predictions, references, "simple")
    assert (auto.tokenizer, ptb.tokenizer, simple.tokenizer) == ("ptb", "ptb", "simple")
    assert auto == ptb
    assert ptb.bleu4 == pytest.approx(100.0)
    assert simple.bleu4 < 100.0


@needs_package
def test_without_java_the_simple_tokenizer_stands_in_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert caption_scores({1: "a b c d"}, {1: ["a b c d"]}).tokenizer == "simple"
    assert "java was not found" in caplog.text


@needs_package
@pytest.mark.parametrize(
    "outcome, message",
    [
        (FileNotFoundError("java"), "PTBTokenizer needs java, which was not found: install"),
        (subprocess.CalledProcessError(1, "java", stderr=b"No Java\nruntime"), r"failed \(No Java runtime\): install"),
        (subprocess.CompletedProcess("java", 0, b"one", b""), "returned 1 lines for 2 captions"),
        (subprocess.CompletedProcess("java", 0, b"one\ntwo\nthree", b""), "returned 3 lines for 2 captions"),
    ],
)
def test_java_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, outcome: Any, message: str) -> None:
    def run(*_: object, **__: object) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(OSError, match=message):
        tokenize_ptb(["one", "two"])


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(captioning.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r'pycocoevalcap.*pip install "uniadapter\[caption\]"'):
        caption_scores({1: "x"}, {1: ["x"]})


@pytest.mark.parametrize(
    "predictions, references, message",
    [
        ({}, {}, "split is empty"),
        ({1: "x"}, {1: ["x"], 2: ["y"]}, r"1 pictures have no caption to score \(2\)"),
        ({i: "x" for i in range(7)}, {0: ["x"]}, r"6 pictures have a caption but .* \(1, 2, 3, 4, 5, …\)"),
        ({1: "x", 2: "y"}, {1: ["x"], 2: []}, r"1 pictures have no reference caption \(2\)"),
        ({1: "x"}, {1: "a text"}, r"1 pictures have a text for a list of reference captions \(1\)"),
    ],
)
def test_pictures_that_do_not_fit(predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        caption_scores(predictions, references, "simple")


@needs_package
def test_references_without_a_word() -> None:
    with pytest.raises(DataError, match="no reference caption has a word"):
        caption_scores({1: "x"}, {1: ["...", ""]}, "simple")
