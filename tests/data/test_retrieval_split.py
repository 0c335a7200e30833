"""Retrieval splits: which text belongs to which visual, records left out, and datasets in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_pictures import picture

from uniadapter.config import DataConfig
from uniadapter.data.captions import from_dataset, load_retrieval
from uniadapter.data.layouts.records import DataError
from uniadapter.data.media.images import load_picture
from uniadapter.data.splits import RetrievalSplit

Write = Callable[[str, Any], Path]
SKIP = DataConfig(on_error="skip")


def names(split: RetrievalSplit) -> list[str]:
    return [Path(str(image)).name for image in split.visuals]


def test_coco_train(coco: Path) -> None:
    split = load_retrieval(coco / "coco_karpathy_train.json", DataConfig(), "train")
    assert names(split) == [f"COCO_train2014_{index:012d}.jpg" for index in range(6)]
    assert split.visual_ids == [f"coco_{index}" for index in range(6)]
    assert split.texts[:3] == ["picture 0, take 1", "picture 0, take 2", "picture 1, take 1"]
    assert split.text_visual == [index // 2 for index in range(12)]
    assert split.visual_texts()[5] == [10, 11]
    assert not split.skipped
    assert split.summary() == "train: 6 pictures, 12 captions"


def test_coco_validation(coco: Path) -> None:
    split = load_retrieval(coco / "coco_karpathy_val.json", DataConfig(), "val")
    assert len(split.visuals) == 3
    assert len(split.texts) == 15
    assert split.visual_texts() == [list(range(5)), list(range(5, 10)), list(range(10, 15))]


def test_flickr_with_its_pictures_elsewhere(write: Write, tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        write(f"pictures/flickr30k-images/{name}", picture(1))
    rows = [
        {"image": f"flickr30k-images/{n}.jpg", "caption": f"Take {k} .", "image_id": f"{n}.jpg"}
        for n in (1, 2)
        for k in range(5)
    ]
    train = write("annotations/flickr30k_train.json", rows)
    test = write("annotations/flickr30k_test.json", [{"image": "flickr30k-images/2.jpg", "caption": ["a", "b"]}])
    config = DataConfig(root=str(tmp_path / "pictures"))
    assert load_retrieval(train, config, "train").text_visual == [0] * 5 + [1] * 5
    assert load_retrieval(test, config, "test").visuals == [tmp_path / "pictures/flickr30k-images/2.jpg"]
    with pytest.raises(DataError, match=r"train\.json\[0\]: picture .* does not exist: set data\.root"):
        load_retrieval(train, DataConfig(), "train")


def test_own_files_share_pictures_by_path(write: Write, tmp_path: Path) -> None:
    write("x/a.png", picture(1))
    write("b.png", picture(2))
    file = write("own.csv", f"image,caption\nx/a.png,one\nb.png,two\n./x/../x/a.png,three\n{tmp_path}/b.png,four\n")
    split = load_retrieval(file, DataConfig(max_words=1), "train")
    assert split.visuals == [tmp_path / "x/a.png", tmp_path / "b.png"]
    assert split.text_visual == [0, 1, 0, 1]
    assert split.visual_ids == ["x/a.png", "b.png"]


@pytest.mark.parametrize(
    "row, kind, message",
    [
        ({"image": "a.png", "caption": " .!"}, "empty caption", "[1]: the caption ' .!' is empty once cleaned"),
        (
            {"image": "b.png", "caption": "x", "image_id": 1},
            "id of two visuals",
            "[1]: id 1 already names",
        ),
        ({"image": "none.png", "caption": ["x", "y"]}, "missing picture", "[1].caption[0]: picture "),
        ({"image": ".", "caption": "x"}, "missing picture", "[1]: picture "),
        ({"image": "a\0.png", "caption": "x"}, "missing picture", "[1]: picture "),
        ({"image": "../b.png", "caption": "x"}, "path outside the data folder", "[1]: picture ../b.png is outside"),
    ],
)
def test_bad_records(write: Write, row: dict[str, Any], kind: str, message: str) -> None:
    write("b.png", picture(2)), write("a.png", picture(1))
    file = write(
        "own.json", [{"image": "a.png", "caption": "x", "image_id": 1}, row, {"image": "b.png", "caption": "z"}]
    )
    with pytest.raises(DataError) as error:
        load_retrieval(file, DataConfig(), "train")
    assert str(error.value).startswith(f"{file}{message}")
    assert "\n" not in str(error.value)
    assert error.value.kind == kind
    split = load_retrieval(file, SKIP, "train")
    assert split.skipped == {kind: 1}
    assert names(split) == ["a.png", "b.png"]
    assert split.texts == ["x", "z"]
    assert split.summary() == f"train: 2 pictures, 2 captions; left out: 1 {kind}"


def test_broken_pictures_leave_a_gallery_but_not_the_training_rows(write: Write) -> None:
    good = write("a.jpg", picture(1, 200, 100)).read_bytes()
    write("b.jpg", good[: len(good) // 2]), write("c.png", picture(3))
    rows = [{"image": name, "caption": [f"{name} 1", f"{name} 2"]} for name in ("b.jpg", "a.jpg", "b.jpg", "c.png")]
    file = write("own.json", rows)
    split = load_retrieval(file, SKIP, "val")
    assert names(split) == ["a.jpg", "c.png"]
    assert split.text_visual == [0, 0, 1, 1]
    assert split.texts == ["a jpg 1", "a jpg 2", "c png 1", "c png 2"]
    assert split.origins == [f"{file}[1].caption[0]", f"{file}[3].caption[0]"]
    assert split.visual_ids == ["a.jpg", "c.png"]
    assert split.skipped == {"corrupt picture": 1}
    assert len(load_retrieval(file, SKIP, "train").visuals) == 3
    assert len(load_retrieval(file, DataConfig(), "val").visuals) == 3
    with pytest.raises(DataError, match=r"own\.json\[0\]\.caption\[0\]: picture .*b\.jpg cannot be read"):
        load_retrieval(file, DataConfig(), "val", check=True)


def test_nothing_usable_is_an_error_even_when_skipping(write: Write) -> None:
    with pytest.raises(DataError, match="no usable picture or video with a caption"):
        load_retrieval(write("a.json", []), SKIP, "train")
    file = write("b.json", [{"image": "none.png", "caption": "x"}])
    with pytest.raises(DataError, match="left out: 1 missing picture"):
        load_retrieval(file, SKIP, "train")


def test_a_sequence_of_mappings(write: Write) -> None:
    rows = [
        {"img": picture(0), "text": ["One.", "Two."]},
        {"img": picture(1), "text": "Three"},
        {"img": picture(0), "text": ""},
    ]
    with pytest.raises(DataError, match=r"^own\[2\]: the caption '' is empty once cleaned"):
        from_dataset(rows, "img", "text", name="own")
    split = from_dataset(rows, "img", "text", config=SKIP)
    assert split.texts == ["one", "two", "three"]
    assert split.text_visual == [0, 0, 1]
    assert split.visual_ids == [0, 1]
    assert load_picture(split.visuals[1]).tobytes() == picture(1).tobytes()
    assert split.skipped == {"empty caption": 1}
    with pytest.raises(DataError, match=r"^own\[0\]: no column 'caption' \(it has img, text\)"):
        from_dataset(rows, "img", name="own")
    with pytest.raises(DataError, match=r"^own\[0\] is of type list: it should be a mapping"):
        from_dataset([["img"]], name="own")  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"^own\[0\]: column 'img' should hold a string"):
        from_dataset(rows, "img", "img", name="own")


def test_rows_share_a_picture_by_id_or_path(write: Write, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"image": picture(0), "caption": str(n), "key": n % 2} for n in range(4)]
    assert from_dataset(rows, id_column="key").text_visual == [0, 1, 0, 1]
    for wrong in ([1], {}, True, None, 1.5):
        with pytest.raises(DataError, match=r"^own\[0\]: (field 'key' is of type|no column 'key')"):
            from_dataset([{"image": picture(0), "caption": "x", "key": wrong}], id_column="key", name="own")
    write("a.png", picture(5))
    rows = [{"image": "a.png", "caption": "x"}, {"image": tmp_path / "a.png", "caption": "y"}]
    split = from_dataset(rows, config=DataConfig(root=str(tmp_path)))
    assert split.text_visual == [0, 0]
    assert split.visuals == [tmp_path / "a.png"]


class Columnar:
    """What of a Hugging Face dataset is used; counts how often a picture is decoded."""

    column_names = ("image", "caption")

    def __init__(self, captions: list[str]) -> None:
        self.captions, self.decoded = captions, 0

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, key: int | str) -> Any:
        if key == "caption":
            return self.captions
        assert isinstance(key, int)
        self.decoded += 1
        return {"image": picture(key), "caption": self.captions[key]}


def test_a_columnar_dataset_is_read_without_decoding_every_picture() -> None:
    dataset = Columnar([f"caption {n}" for n in range(50)])
    split = from_dataset(dataset)
    assert len(split.visuals) == 50
    assert dataset.decoded == 1
    assert load_picture(split.visuals[7]).tobytes() == picture(7).tobytes()
    with pytest.raises(DataError, match=r"no column 'text' \(it has image, caption\)"):
        from_dataset(dataset, caption_column="text")


def test_a_split_of_dataset_rows_holds_json_free_ids() -> None:
    split = from_dataset([{"image": picture(0), "caption": "x"}])
    assert json.dumps(split.visual_ids) == "[0]"
