"""Validation of JSON and YAML files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from uniadapter.files.messages import MAX_MESSAGE
from uniadapter.files.schema import SchemaError, read_json, validated
from uniadapter.files.yaml_files import read_yaml


@dataclass
class Inner:
    rate: float = 0.1


@dataclass
class Outer:
    count: Annotated[int, Field(ge=1)]
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)


def test_right_content_is_an_instance() -> None:
    assert validated({"count": 2, "inner": {"rate": 1}}, Outer, "x.json") == Outer(2, "a", Inner(1.0))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, "count"),
        ({"count": 0}, "count"),
        ({"count": 1.0}, "count"),
        ({"count": "1"}, "count"),
        ({"count": True}, "count"),
        ({"count": None}, "count"),
        ({"count": 1, "kind": "c"}, "kind"),
        ({"count": 1, "inner": []}, "inner"),
        ({"count": 1, "inner": {"rate": float("nan")}}, "inner.rate"),
        ({"count": 1, "typo": 1}, "typo"),
        ([], "object"),
        ({"count": "x" * 10_000}, "count"),
    ],
)
def test_wrong_content_is_one_short_line_that_names_file_and_key(values: Any, names: str) -> None:
    with pytest.raises(SchemaError) as caught:
        validated(values, Outer, "x.json")
    message = str(caught.value)
    assert message.startswith("x.json: ")
    assert names in message
    assert "\n" not in message
    assert len(message) <= MAX_MESSAGE


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe", b"[" * 10_000, b"[" * 500 + b"]" * 500, b'{"a": ', b"", b"nul"],
    ids=["cut", "not UTF-8", "10,000 levels", "500 levels", "no value", "empty", "no word"],
)
def test_json_that_is_none_or_nests_too_deep(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(SchemaError, match=r"x\.json"):
        read_json(file)


BOMB = "a: &a [x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize("content", [BOMB, "{" * 10_000, "a: [", "a: \x07", "? [1]\n: 2"])
def test_yaml_that_is_none_nests_too_deep_or_unfolds(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    with pytest.raises(SchemaError, match=r"x\.yaml"):
        read_yaml(file)


def test_good_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    (tmp_path / "a.yaml").write_text("a: &x [1]\nb: *x\n")
    assert read_json(tmp_path / "a.json") == {"a": [1]}
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"count": 2, "name": "\ud83d"}, "name is"),
        ({"count": 2, "inner": {"rate": "\udcff"}}, "inner.rate is"),
        ({"count": 2, "\ud83d": 1}, "a lone surrogate"),
        ({"count": 2, "name": ["a", "b\ud83d"]}, "name.1 is"),
    ],
)
def test_a_lone_surrogate_is_named_by_its_place(values: dict[str, object], place: str) -> None:
    with pytest.raises(SchemaError, match="a lone surrogate is not valid text") as caught:
        validated(values, Outer, "x.json")
    assert place in str(caught.value)
