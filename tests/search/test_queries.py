"""The grammar of queries."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniadapter.errors import UsageError
from uniadapter.search.queries import parse_query


def terms(text: str) -> list[tuple[float, str]]:
    return [(term.weight, term.text or str(term.picture)) for term in parse_query(text).terms]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red kite", [(1, "a red kite")]),
        ("  a cat  +  a dog ", [(1, "a cat"), (1, "a dog")]),
        ("dog + 0.5: cat - night", [(1, "dog"), (0.5, "cat"), (-1, "night")]),
        ("2:golden retriever", [(2, "golden retriever")]),
        ("x-ray", [(1, "x-ray")]),
        ("t-shirt -5 degrees", [(1, "t-shirt -5 degrees")]),
        ("half past 12:30", [(1, "half past 12:30")]),
        ("- night + day", [(-1, "night"), (1, "day")]),
        ("日本の庭", [(1, "日本の庭")]),
        ("a\tb", [(1, "a\tb")]),
        (".5: fog + sun", [(0.5, "fog"), (1, "sun")]),
    ],
)
def test_terms(text: str, expected: list[tuple[float, str]]) -> None:
    assert terms(text) == expected


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my picture.jpg").touch()
    assert terms("./my picture.jpg + 2: dog") == [(1, "my picture.jpg"), (2, "dog")]
    assert not parse_query("./my picture.jpg").can_be_matched
    assert not parse_query("dog - cat").can_be_matched
    assert parse_query("dog + 0.5: cat").can_be_matched
    assert terms("my picture.jpg") == [(1, "my picture.jpg")], "words, without ./"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty term"),
        ("   ", "empty term"),
        ("dog + ", "empty term"),
        ("dog +  + cat", "empty term"),
        ("2:", "empty term"),
        ("- night", "only what should not be there"),
        ("0: dog", "not between 0 and 100"),
        ("1000: dog", "not between 0 and 100"),
        ("./nowhere.jpg", "no such picture"),
        ("a" * 10_001, "10,001 characters"),
    ],
)
def test_what_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_query(text)
