"""Reading of annotation files, valid and invalid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniadapter.data.layouts import annotation_file
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Record
from uniadapter.data.layouts.registry import read_records
from uniadapter.data.media.paths import resolve_visual

Write = Callable[[str, Any], Path]


def read(path: Path) -> list[Record]:
    return list(read_records(path, ErrorPolicy()))


def test_karpathy_train_has_a_record_per_row(coco: Path) -> None:
    records = read(coco / "coco_karpathy_train.json")
    assert len(records) == 12
    assert records[3] == Record(
        "train2014/COCO_train2014_000000000001.jpg",
        "Picture 1, take 2.",
        "coco_1",
        f"{coco}/coco_karpathy_train.json[3]",
    )


def test_karpathy_test_has_a_record_per_caption(write: Write) -> None:
    file = write("flickr30k_test.json", [{"image": "flickr30k-images/1.jpg", "caption": ["one", "two"]}])
    assert [(r.caption, r.visual_id, r.origin) for r in read(file)] == [
        ("one", "flickr30k-images/1.jpg", f"{file}[0].caption[0]"),
        ("two", "flickr30k-images/1.jpg", f"{file}[0].caption[1]"),
    ]


def test_jsonl_counts_blank_lines_and_takes_lists(write: Write) -> None:
    content = '\ufeff{"image": "a.png", "caption": "x", "image_id": 7}\n\n{"image": "b.png", "caption": ["y", "z"]}\n'
    for name in ("own.jsonl", "own.json", "own.txt"):
        file = write(name, content)
        found = [(r.visual_id, r.caption, r.origin) for r in read(file)]
        assert found == [
            (7, "x", f"{file}:1"),
            ("b.png", "y", f"{file}:3.caption[0]"),
            ("b.png", "z", f"{file}:3.caption[1]"),
        ]


def test_csv_with_quotes_and_byte_order_mark(write: Write) -> None:
    file = write("own.csv", '\ufeffcaption, image\r\n"a red, round one",a.png\r\nplain,b.png\r\n')
    assert [(r.visual, r.caption, r.origin) for r in read(file)] == [
        ("a.png", "a red, round one", f"{file}:2"),
        ("b.png", "plain", f"{file}:3"),
    ]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", "[{}", "is not JSON"),
        ("a.json", "hello", "is not JSON"),
        (
            "a.json",
            {"images": [], "dataset": "coco"},
            "no field 'image' or 'video' and 'caption' (it has images, dataset)",
        ),
        ("a.json", '{\n"images": [1]\n}', "an object of images: it should be a list of records"),
        ("a.json", " \n", "is empty"),
        ("a.json", b"[\xff\xfe]", "is not JSON"),
        ("a.csv", "picture,text\n1,2\n", "no field 'image' or 'video' and 'caption' (it has picture, text)"),
        ("a.csv", b"image,caption\na.png,\xff\n", "is not CSV in UTF-8"),
    ],
)
def test_unusable_files(write: Write, on_error: Any, name: str, content: Any, message: str) -> None:
    file, policy = write(name, content), ErrorPolicy(on_error)
    if on_error == "skip" and "dataset, " not in message and isinstance(content, dict):
        assert list(read_records(file, policy)) == []
        assert policy.skipped == {"missing field": 1}
        return
    with pytest.raises(DataError) as error:
        list(read_records(file, policy))
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json does not exist: check the path"):
        read(tmp_path / "nowhere.json")


GOOD = {"image": "a.png", "caption": "good"}


@pytest.mark.parametrize(
    "row, kind, message",
    [
        (["a.png", "x"], "not an object", "[1] is of type list"),
        ({"image": "a.png", "captions": ["x"]}, "missing field", "[1]: no field 'caption' (it has image, captions)"),
        ({"image": None, "caption": "x"}, "missing field", "[1]: no field 'image' or 'video' (it has caption)"),
        ({"image": 3, "caption": "x"}, "unusable image", "[1]: field 'image' is of type int"),
        ({"image": " ", "caption": "x"}, "unusable image", "[1]: field 'image' is empty"),
        ({"image": "a.png", "caption": 5}, "unusable caption", "[1]: field 'caption' is of type int"),
        ({"image": "a.png", "caption": [None]}, "unusable caption", "[1].caption[0]: field 'caption' is of type None"),
        ({"image": "a.png", "caption": []}, "empty caption", "[1]: the list of captions is empty"),
        ({"image": "a.png", "caption": "x", "image_id": [1]}, "unusable image_id", "[1]: field 'image_id' is of type"),
    ],
)
def test_bad_records_are_named_or_skipped_and_counted(write: Write, row: Any, kind: str, message: str) -> None:
    file = write("a.json", [GOOD, row, GOOD])
    with pytest.raises(DataError) as error:
        read(file)
    assert str(error.value).startswith(f"{file}{message}")
    assert "\n" not in str(error.value)
    policy = ErrorPolicy("skip")
    assert len(list(read_records(file, policy))) == 2
    assert policy.skipped == {kind: 1}


@pytest.mark.parametrize(
    "name, content, kind, message",
    [
        ("a.jsonl", '{"image": "a", "caption": "x"}\n{"image": \n', "not JSON", ":2 is not JSON"),
        ("a.jsonl", '{"image": "a", "caption": "x"}\n[1]\n', "not an object", ":2 is of type list"),
        ("a.jsonl", b'{"image": "a", "caption": "x"}\n{"image": "\xff"}\n', "not JSON", ":2 is not JSON"),
        ("a.csv", "image,caption\na,x\nb,one, two\n", "too many columns", ":3 has more columns than the header"),
        ("a.csv", "image,caption\na,x\nb\n", "missing field", ":3: no field 'caption' (it has image)"),
    ],
)
def test_bad_lines(write: Write, name: str, content: Any, kind: str, message: str) -> None:
    file = write(name, content)
    with pytest.raises(DataError) as error:
        read(file)
    assert str(error.value).startswith(f"{file}{message}")
    policy = ErrorPolicy("skip")
    assert len(list(read_records(file, policy))) == 1
    assert policy.skipped == {kind: 1}


def test_records_stream_before_the_error(write: Write) -> None:
    stream = read_records(write("a.jsonl", '{"image": "a", "caption": "x"}\nbroken\n'), ErrorPolicy())
    assert next(stream).caption == "x"
    with pytest.raises(DataError):
        next(stream)


def test_paths_stay_below_the_root_or_are_absolute() -> None:
    root = Path("/data")
    assert resolve_visual(root, "a/../b.png", "f[0]") == Path("/data/b.png")
    assert resolve_visual(root, "..b.png", "f[0]") == Path("/data/..b.png")
    assert resolve_visual(root, "/other/b.png", "f[0]") == Path("/other/b.png")
    for path in ("../b.png", "a/../../b.png", ".."):
        with pytest.raises(DataError, match=r"^f\[0\]: picture .* is outside the data folder /data"):
            resolve_visual(root, path, "f[0]")


def test_a_small_file_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    file = tmp_path / "rows.json"
    file.write_text('[{"image": "a.png", "caption": "a"}]')
    tracemalloc.start()
    try:
        assert annotation_file.read_json(file) == [{"image": "a.png", "caption": "a"}]
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(annotation_file, "_MAX_BYTES", 10)
    with pytest.raises(DataError, match=r"rows\.json is not JSON \(it holds more than"):
        annotation_file.read_json(file)
