"""Text cleaning."""

from __future__ import annotations

import pytest

from uniadapter.data.text import clean_caption, clean_question


@pytest.mark.parametrize(
    "text, caption, question",
    [
        ("A man RIDING a horse.", "a man riding a horse", "a man riding a horse"),
        ("well-known: the dog's #1 (toy)!", "well-known the dog's 1 toy", "well-known the dog's 1 toy"),
        ("one.two~three;four", "one two three four", "onetwothreefour"),
        ('a "quoted" word*, kept?', "a quoted word , kept?", "a quoted word, kept?"),
        ("  spaces \t and\nlines  \n", "spaces and lines", "spaces and lines"),
        ("...!!", "", ""),
        ("", "", ""),
        ("Ça & là, 50%", "ça & là, 50%", "ça & là, 50%"),
    ],
)
def test_cleaning(text: str, caption: str, question: str) -> None:
    assert clean_caption(text) == caption
    assert clean_question(text) == question


def test_long_texts_are_cut_by_words() -> None:
    words = [f"w{index}" for index in range(60)]
    assert clean_caption(" ".join(words)) == " ".join(words[:30])
    assert clean_caption(" ".join(words), max_words=3) == "w0 w1 w2"
    assert clean_question(" ".join(words)) == " ".join(words[:50])
