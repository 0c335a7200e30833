"""Layouts of the published annotation files and their variants; pictures are found in the usual folders."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_pictures import picture

from uniadapter.app.parsing import UsageError, parse_run
from uniadapter.config import ConfigError, DataConfig
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts import annotation_file
from uniadapter.data.layouts.records import DataError
from uniadapter.data.layouts.registry import REGISTRY, detect_layout
from uniadapter.data.questions import QuestionSplit, load_questions
from uniadapter.data.splits import RetrievalSplit

Write = Callable[[str, Any], Path]
NAMES = ("000.jpg", "001.jpg", "002.jpg", "003.jpg")


@pytest.fixture
def pictures(write: Write, tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        write(name, picture(number))
    return tmp_path


def captions(file: Path, split: str = "train", **more: Any) -> RetrievalSplit:
    return load_retrieval(file, DataConfig(**more), split)


def questions(file: Path, split: str = "train", **more: Any) -> QuestionSplit:
    return load_questions(file, DataConfig(**more), split)


def pairs(split: RetrievalSplit) -> list[tuple[str, str]]:
    """Name of the visual and text of every sample."""
    return [
        (Path(str(split.visuals[visual])).name, text)
        for text, visual in zip(split.texts, split.text_visual, strict=True)
    ]


TWO = [("000.jpg", "a red box"), ("001.jpg", "a ball, blue")]


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.csv", 'image,caption\n000.jpg,a red box\n001.jpg,"a ball, blue"\n'),
        ("a.csv", "image;caption\n000.jpg;a red box\n001.jpg;a ball, blue\n"),
        ("a.csv", "image\tcaption\n000.jpg\ta red box\n001.jpg\ta ball, blue\n"),
        ("a.tsv", "caption\timage\na red box\t000.jpg\n\na ball, blue\t001.jpg\n"),
        ("a.csv", "sep=;\r\nimage;caption\r\n000.jpg;a red box\r\n001.jpg;a ball, blue\r\n"),
        ("a.txt", "image| caption\n000.jpg| a red box\n001.jpg| a ball, blue\n"),
        ("metadata.csv", 'file_name,text\n000.jpg,a red box\n001.jpg,"a ball, blue"\n'),
        ("a.csv", 'Image Path,Title\r\n000.jpg,a red box\r\n001.jpg,"a ball, blue"\r\n'),
        ("a.tsv", "000.jpg\ta red box\n001.jpg\ta ball, blue\n"),
        ("a.tsv", "a red box\t000.jpg\na ball, blue\t001.jpg\n"),
        ("hf.csv", 'raw,split,filename\n"[""a red box""]",train,000.jpg \n"[\'a ball, blue\']",train,001.jpg\n'),
        ("results.csv", "image_name| comment_number| comment\n000.jpg| 0| a red box\n001.jpg| 4   a ball, blue\n"),
        ("results_20130124.token", "000.jpg#0\ta red box\n001.jpg#12\ta ball, blue\n"),
        ("captions.txt", "000.jpg#0\ta red box\n001.jpg#1\ta ball, blue\n"),
        ("a.tsv", 'image\tcaption\n000.jpg\t"a red box"\n001.jpg\ta "ball, blue\n'),
    ],
)
def test_tables(write: Write, pictures: Path, name: str, text: str) -> None:
    found = captions(write(name, text))
    assert pairs(found) == TWO
    assert pairs(captions(write(f"{name}.gz", gzip.compress(text.encode())))) == TWO


ROWS = [{"image": "000.jpg", "caption": "a red box"}, {"image": "001.jpg", "caption": "a ball, blue"}]


def renamed(image: str, caption: str, wrap: Callable[[str], Any] = lambda text: text) -> list[dict[str, Any]]:
    return [{image: row["image"], caption: wrap(row["caption"])} for row in ROWS]


@pytest.mark.parametrize(
    "content",
    [
        renamed("file_name", "text"),
        renamed("image_path", "caption"),
        renamed("filepath", "sentence"),
        renamed("imagePath", "captions", lambda text: [text]),
        renamed("images", "sentences", lambda text: [{"raw": text, "tokens": text.split()}]),
        {"data": [{"image_id": "000", "image_path": "000.jpg", "caption_str": "a red box"},
                  {"image_id": "001", "image_path": "001.jpg", "caption_str": "a ball, blue"}]},
        {"images": [{"id": 7, "file_name": "000.jpg"}, {"id": 8, "file_name": "001.jpg"}], "info": {},
         "annotations": [{"image_id": 7, "id": 0, "caption": "a red box"},
                         {"image_id": 8, "id": 1, "caption": "a ball, blue"}]},
        {"000.jpg": ["a red box"], "001.jpg": ["a ball, blue"]},
        {"000.jpg": {"caption": "a red box"}, "001.jpg": {"caption": "a ball, blue"}},
        {"x": ROWS[0], "y": ROWS[1]},
        {"train": ROWS, "test": ROWS[:1]},
        {"image": {"0": "000.jpg", "1": "001.jpg"}, "caption": {"0": "a red box", "1": "a ball, blue"}},
        {"image": ["000.jpg", "001.jpg"], "caption": ["a red box", "a ball, blue"]},
        [{"id": "0", "image": "000.jpg", "conversations": [
            {"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "a red box"}]},
         {"id": "1", "image": "001.jpg", "conversations": [
            {"from": "human", "value": "Describe.\n<image>"}, {"from": "gpt", "value": "a ball, blue"}]}],
        [{"images": ["000.jpg"], "messages": [
            {"role": "user", "content": "<image>Describe"}, {"role": "assistant", "content": "a red box"}]},
         {"messages": [{"role": "user", "content": [{"type": "image", "image": "file://001.jpg"}]},
                       {"role": "assistant", "content": [{"type": "text", "text": "a ball, blue"}]}]}],
    ],
)  # fmt: skip
def test_json(write: Write, pictures: Path, content: Any) -> None:
    found = captions(write("a.json", content))
    assert pairs(found) == TWO
    spread = json.dumps(content, indent=1)  # in many lines
    assert pairs(captions(write("b.json", spread))) == TWO
    assert pairs(captions(write("c.json.gz", gzip.compress(spread.encode())))) == TWO
    if isinstance(content, list):
        assert pairs(captions(write("d.jsonl", "\n".join(map(json.dumps, content))))) == TWO


def karpathy(folder: str | None = None) -> dict[str, Any]:
    splits = ("train", "val", "test", "restval")
    return {"dataset": "coco", "images": [
        {**({"filepath": folder} if folder else {}), "filename": name, "imgid": number, "split": splits[number],
         "cocoid": 1000 + number, "sentences": [{"raw": f"Take {n} of {name}.", "tokens": []} for n in range(2)]}
        for number, name in enumerate(NAMES)
    ]}  # fmt: skip


@pytest.mark.parametrize("folder", [None, "val2014"])
def test_karpathy_holds_every_split(write: Write, pictures: Path, folder: str | None) -> None:
    file = write("dataset_coco.json", karpathy(folder))
    for split, ids in (("train", [1000, 1003]), ("val", [1001]), ("test", [1002]), ("unseen", [1002])):
        found = captions(file, split)
        assert found.visual_ids == ids
        assert len(found.texts) == 2 * len(ids)
        assert f"{4 - len(ids)} pictures of other splits ignored" in found.summary()
    assert found.origins == [f"{file}.images[2].caption[0]"]
    flat = [{**{"filepath": folder}, **image} for image in karpathy(folder)["images"]]  # as Hugging Face has it
    rows = [{k: v for k, v in row.items() if v is not None} for row in flat]
    assert captions(write("hf.json", rows)).visual_ids == [1000, 1003]
    only = {"images": karpathy()["images"][:1]}
    with pytest.raises(DataError, match=r"has pictures of train, none of val"):
        captions(write("only.json", only), "val")


def test_pictures_are_found_in_the_folder_that_the_split_names(write: Write, tmp_path: Path) -> None:
    write("val2014/001.jpg", picture(1))
    assert captions(write("k.json", karpathy("val2014")), "val").visuals == [tmp_path / "val2014/001.jpg"]
    write("val2017/001.jpg", picture(1))
    coco = {"images": [{"id": 8, "file_name": "001.jpg"}], "annotations": [{"image_id": 8, "caption": "x"}]}
    file = write("captions_val2017.json", coco)
    assert captions(file, "test").visuals == [tmp_path / "val2017/001.jpg"]
    coco["annotations"].append({"image_id": 9, "caption": "y"})
    with pytest.raises(DataError, match=r"annotations\[1\]: its image_id is not in"):
        captions(write("captions_val2017.json", coco), "test")
    boxes = {**coco, "annotations": [{"image_id": 8, "bbox": [0, 0, 1, 1]}]}
    with pytest.raises(DataError, match=r"official COCO file, but its annotations have no caption"):
        captions(write("instances_val2017.json", boxes))


def test_rows_that_name_several_splits(write: Write, pictures: Path) -> None:
    rows = [
        {**row, "split": split}
        for row, split in zip([*ROWS, {"image": "002.jpg", "caption": "x"}], ("train", "val", "train"), strict=True)
    ]
    file = write("a.json", rows)
    assert [name for name, _ in pairs(captions(file))] == ["000.jpg", "002.jpg"]
    assert pairs(captions(file, "val")) == TWO[1:]
    with pytest.raises(DataError, match="has rows of train, val, none of test"):
        captions(file, "test")
    assert len(captions(write("val.json", [{**row, "split": "val"} for row in ROWS]), "test").texts) == 2


def test_folders(write: Write, tmp_path: Path) -> None:
    for name in ("pics/a.jpg", "pics/sub/b.png", "all/train/c.jpg", "all/test/d.jpg", "hf/e.jpg"):
        write(name, picture(1))
    with pytest.raises(DataError, match=r"has 2 pictures or videos without texts: add metadata\.jsonl"):
        captions(tmp_path / "pics")
    write("pics/a.txt", "One.\nTwo."), write("pics/sub/b.txt", "Three")
    found = captions(tmp_path / "pics", root="/elsewhere")
    assert pairs(found) == [("a.jpg", "one"), ("a.jpg", "two"), ("b.png", "three")]
    assert found.visual_ids == ["a.jpg", "sub/b.png"]
    write("all/train/c.txt", "c"), write("all/test/d.txt", "d")
    assert pairs(captions(tmp_path / "all", "test")) == [("d.jpg", "d")]
    for name, text in (
        ("metadata.csv", "file_name,text\ne.jpg,x\n"),
        ("metadata.jsonl", '{"file_name": "e.jpg", "text": "x"}'),
    ):
        file = write(f"hf/{name}", text)
        found = captions(tmp_path / "hf", root="/elsewhere")
        assert (pairs(found), found.visual_ids) == ([("e.jpg", "x")], ["e.jpg"])
        file.unlink()
    write("hf/metadata.jsonl", '{"file_name": "e.jpg", "question": "What?", "answer": "it"}')
    assert questions(tmp_path / "hf").answers == [{"it": 1.0}]
    write("hf/metadata.jsonl", '{"file_name": "../pics/a.jpg", "text": "x"}')
    with pytest.raises(DataError, match="outside the data folder"):
        captions(tmp_path / "hf")
    for name, message in (("dataset_info.json", "is a Hugging Face dataset"), ("0.tar", "has tar shards")):
        write(f"odd-{name}/{name}", "{}")
        with pytest.raises(DataError, match=message):
            captions(tmp_path / f"odd-{name}")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no picture, no video and no metadata"):
        captions(tmp_path / "none")


def test_videos_by_name(write: Write, tmp_path: Path) -> None:
    clips = ["0001_American_Beauty_00.00.51.926-00.00.54.120", "0001_American_Beauty_00.01.51.926-00.01.54.120"]
    write(f"{clips[0]}.avi", b"\0"), write(f"0001_American_Beauty/{clips[1]}.mp4", b"\0")
    times = "\t00.00.51.926\t00.00.54.129\t00.00.51.926\t00.00.54.129"
    lsmdc = write("LSMDC16_annos_training.csv", "".join(f'{clip}{times}\tSOMEONE "lies, down.\n' for clip in clips))
    assert pairs(captions(lsmdc)) == [
        (f"{clips[0]}.avi", "someone lies, down"),
        (f"{clips[1]}.mp4", "someone lies, down"),
    ]
    with pytest.raises(DataError, match="blind test: it has no sentences"):
        captions(write("blind.csv", f"{clips[0]}{times}\n"))
    write("v_abc.mp4", b"\0")
    spoken = {"v_abc": {"duration": 9.0, "timestamps": [[0, 3], [2, 9]], "sentences": [" A man runs.", "He falls. "]}}
    assert pairs(captions(write("train.json", spoken))) == [("v_abc.mp4", "a man runs he falls")]


def test_flickr8k(write: Write, tmp_path: Path) -> None:
    write("Flicker8k_Dataset/a.jpg", picture(1))
    listed = write("Flickr_8k.trainImages.txt", "a.jpg\n")
    token = write("Flickr8k.token.txt", "a.jpg#0\tA dog .\na.jpg#1\tIt runs .\nb.jpg#0\tof the test\n")
    assert pairs(captions(listed, captions=str(token))) == [("a.jpg", "a dog"), ("a.jpg", "it runs")]
    listed.write_text("a.jpg\nc.jpg\n")
    with pytest.raises(DataError, match=r"has no caption of picture c\.jpg"):
        captions(listed, captions=str(token))


def test_a_layout_that_the_file_is_not_of(write: Write, pictures: Path) -> None:
    file = write("a.json", ROWS)
    for layout in REGISTRY:
        if layout.rows is not None and layout.name != "pairs":
            with pytest.raises(DataError, match=re.escape(f"is not {layout.what}, as data.layout says: it looks")):
                captions(file, layout=layout.name)
    asked = write("q.json", votes("answer", "x"))
    for name in ("pairs", "alpro", "msrvtt"):
        assert questions(asked, layout=name).answers == [{"x": 1.0}]
    with pytest.raises(DataError, match="is not a list of names"):
        questions(asked, layout="names")
    assert captions(write("b.json", karpathy()), layout="karpathy").visual_ids == [1000, 1003]


def test_fields_on_the_command_line() -> None:
    config, _ = parse_run("train", ["--data.fields", "{image: photo, caption: said}"], lambda parser: None)
    assert config.data.fields == {"image": "photo", "caption": "said"}
    with pytest.raises(UsageError, match=r"'imge' is not a known field; did you mean image\?"):
        parse_run("train", ["--data.fields", "{imge: photo}"], lambda parser: None)


def test_msvd(write: Write, tmp_path: Path) -> None:
    write("-4wsu_5_15.avi", b"\0"), write("b_1_2.avi", b"\0")
    spoken = {"-4wsu_5_15": [["a", "man"], ["he", "runs"]], "b_1_2": [["a", "dog"]]}
    listed = write("train_list_msvd.txt", "-4wsu_5_15\nb_1_2\n")
    wanted = [("-4wsu_5_15.avi", "a man"), ("-4wsu_5_15.avi", "he runs"), ("b_1_2.avi", "a dog")]
    lines = "# a comment\n-4wsu_5_15 a man\n-4wsu_5_15 he runs\nb_1_2 a dog\n"
    pickles = [(f"raw-{protocol}.pkl", pickle.dumps(spoken, protocol)) for protocol in range(6)]
    for name, content in (*pickles, ("raw.json", spoken), ("AllVideoDescriptions.txt", lines)):
        assert pairs(captions(listed, captions=str(write(name, content)))) == wanted, name
    with pytest.raises(DataError, match=r"a list of names without captions: set data\.captions"):
        captions(listed)
    with pytest.raises(DataError, match="is a pickle, which may hold code"):
        captions(tmp_path / "raw-4.pkl")
    few = write("few.json", {"b_1_2": ["a dog"]})
    with pytest.raises(DataError, match=r"train_list_msvd\.txt:1: .* has no caption of video -4wsu_5_15"):
        captions(listed, captions=str(few))
    assert "2 listed, 1 found" in captions(listed, captions=str(few), on_error="skip").summary()


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": Code()}),
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # bytes beyond its end
        b"\x80\x04]r\xff\xff\xff\x7f.",  # the place of a value that would take gigabytes
        b"\x80\x04}.garbage"[:3],
        b"\x80\x04K\x01.",
        b"",
    ],
)
def test_pickles_of_anything_else_are_refused(
    write: Write, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"raw\.pkl"):
        captions(write("train_list.txt", "b_1_2\n"), captions=str(write("raw.pkl", content)))
    assert not (tmp_path / "ran").exists()


def votes(key: str, value: Any, image: str = "000.jpg", **more: Any) -> list[dict[str, Any]]:
    return [{"image": image, "question": "What?", key: value, **more}]


@pytest.mark.parametrize(
    "rows, expected",
    [
        (votes("answers", [{"answer": "red", "answer_id": 1}] * 9 + [{"answer": "Blue"}]), {"red": 0.9, "blue": 0.1}),
        (votes("answers", ["red", "red", "blue", "red"]), {"red": 0.75, "blue": 0.25}),
        (votes("answers", {"answer": ["red"] * 2, "answer_id": [1, 2]}), {"red": 1.0}),
        (votes("direct_answers", ["red"] * 10, choices=["blue", "red"], correct_choice_idx=0), {"red": 1.0}),
        (votes("direct_answers", "['red', 'blue']"), {"red": 0.5, "blue": 0.5}),
        (votes("choices", ["blue", "red"], correct_choice_idx=1), {"red": 1.0}),
        (votes("multiple_choice_answer", "red"), {"red": 1.0}),
        (votes("label", {"red": 0.6, "blue": 0.2}), {"red": 0.8, "blue": 0.2}),
        (votes("label", {"ids": ["red"], "weights": [1.0]}), {"red": 1.0}),
        (votes("label", "red"), {"red": 1.0}),
        (votes("answer", 1, choices=["blue", "red"]), {"red": 1.0}),
        (votes("answer", "1", a0="blue", a1="red"), {"red": 1.0}),
        (votes("answer", "2", choices=["2", "3"]), {"2": 1.0}),
        (votes("answer", 2, choices=["1", "2", "3"]), {"2": 1.0}),
        ([{"id": 139, "qas": [{"qa_id": 5, "image_id": 139, "question": "What?", "answer": "red"}]}], {"red": 0.2}),
        (votes("answer", [2, 2.0, "2", True]), {"2": 0.75, "true": 0.25}),
        ({"00": {"imageId": "000", "question": "What?", "answer": "red", "types": {}}}, {"red": 1.0}),
        ({"data": [{"image_id": "000", "question": "What?", "answers": ["red"]}]}, {"red": 1.0}),
        ({"questions": [{"image_filename": "000.jpg", "question": "What?", "answer": "red"}]}, {"red": 1.0}),
        ([{"image_id": 139, "question": "What?", "direct_answers": ["red"], "split": "val"}], {"red": 1.0}),
    ],
)  # fmt: skip
def test_answers_under_every_name(write: Write, pictures: Path, rows: Any, expected: dict[str, float]) -> None:
    write("val2017/000000000139.jpg", picture(1)), write("VG_100K/139.jpg", picture(1))
    split = questions(write("a.json", rows))
    assert split.answers == [expected]
    assert split.texts == ["what?"]


@pytest.mark.parametrize(
    "row, message",
    [
        ({"answers": [{"text_": "x"}]}, "field 'answers' is of type NoneType"),
        ({"answers": {"a": 1}}, "field 'answers'"),
        ({"answer": {}, "answers": [[]]}, "field 'answer'"),
        ({"label": 3}, "field 'label' is a number: it should be the answer itself"),
        ({"label": {"ids": [3], "weights": [1.0]}}, "field 'label' should be an object of answer to weight"),
        ({"label": {"ids": ["a", "b"], "weights": [1.0]}}, "differ in length"),
        ({"label": {"a": -1}}, "is not between 0 and"),
        ({"choices": ["a"], "correct_choice_idx": 4}, "should be a number below 1"),
        ({"answer": "x", "question_id": [1]}, "field 'question_id' is of type list"),
        ({"answer": "x", "question_id": True}, "field 'question_id' is of type bool"),
        ({"answer": "x", "answer_type": {}}, "field 'answer_type' is of type dict"),
        ({"answer": "\ud83d"}, "the answer has a lone surrogate"),
        ({"answer": "x", "question": "what is \ud83d"}, "the question has a lone surrogate"),
        ({"answer": "x", "question": ["what"]}, "field 'question' is of type list"),
        ({"answer": "x", "image_id": 1.5}, "field 'image_id' is of type float"),
    ],
)
def test_questions_that_cannot_be_used(write: Write, pictures: Path, row: dict[str, Any], message: str) -> None:
    file = write(
        "a.json",
        [{"image": "000.jpg", "question": "what", **row}, {"image": "000.jpg", "question": "Is it?", "answer": "y"}],
    )
    with pytest.raises(DataError) as error:
        questions(file)
    assert str(error.value).startswith(f"{file}[0]")
    assert message in str(error.value)
    assert questions(file, on_error="skip").texts == ["is it?"]


def test_official_questions_of_test_dev_are_about_the_test(write: Write, tmp_path: Path) -> None:
    for name in ("test2015/COCO_test2015_000000000001.jpg", "000000000002.jpg"):
        write(name, picture(1))
    rows = [{"image_id": n, "question": "What?", "question_id": n * 10} for n in (1, 2)]
    for subtype in ("test-dev2015", "test2015"):
        file = write("q.json", {"data_subtype": subtype, "questions": rows})
        assert [path.name for path in questions(file, "test").visuals] == [
            "COCO_test2015_000000000001.jpg",
            "000000000002.jpg",
        ]  # type: ignore[union-attr]
    wrong = write("w.json", {"data_subtype": ["x"], "questions": [{**rows[0], "question_id": [1]}, rows[1]]})
    assert questions(wrong, "test", on_error="skip").question_ids == [20]


def test_official_files_that_lack_or_are_the_answers(write: Write, pictures: Path) -> None:
    rows = [{"image_id": 1, "question": "What?", "question_id": 10}]
    with pytest.raises(DataError, match=r"has no answer: set data\.annotations: \{train: FILE\}"):
        questions(write("q.json", {"data_subtype": "train2014", "questions": rows}))
    notes = {"annotations": [{"question_id": 10, "image_id": 1, "answers": [{"answer": "x"}]}]}
    with pytest.raises(DataError, match=r"is an official annotation file \(answers\): set data\.annotations"):
        questions(write("a.json", notes))


@pytest.mark.parametrize(
    "number, name",
    [
        (1, "001.jpg"), (1, "00001.jpg"), ("1", "train2017/000000000001.jpg"),
        (1, "train2014/COCO_train2014_000000000001.jpg"), ("x.jpg", "train_images/x.jpg"),
        ("x", "x.png"), ("x", "images/x.jpg"), ("²", "².jpg"), ("9" * 200, "9" * 200 + ".jpg"),
    ],
)  # fmt: skip
def test_pictures_are_found_by_id(write: Write, tmp_path: Path, number: str | int, name: str) -> None:
    write(name, picture(1))
    rows = [{"image_id": number, "question": "What?", "direct_answers": ["x"], "split": "train"}]
    assert questions(write("a.json", rows)).visuals == [tmp_path / name]
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"a\.json\[0\]: picture .* and similar paths: set"):
        questions(tmp_path / "a.json")


def test_conversations_are_questions_and_replies(write: Write, pictures: Path) -> None:
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "a box"), ("human", "Red?"), ("gpt", "yes")]
    rows = [{"id": "a", "image": "000.jpg", "conversations": [{"from": who, "value": text} for who, text in turns]}]
    file = write("llava.json", rows)
    split = questions(file)
    assert (split.texts, split.question_ids) == (["what is it?", "red?"], ["a.0", "a.1"])
    assert split.answers == [{"a box": 1.0}, {"yes": 1.0}]
    found = captions(file)
    assert found.texts == ["a box"]
    assert "1 further turns of conversations ignored" in found.summary()
    for broken in ([], [3], [{"from": "human", "value": "x"}], [{"from": "gpt", "value": 3}], "x"):
        with pytest.raises(DataError, match=r"llava\.json\[0\]"):
            captions(write("llava.json", [{"image": "000.jpg", "conversations": broken}]))


def test_fields_are_mapped(write: Write, pictures: Path) -> None:
    file = write("a.csv", "photo,said,comment\n000.jpg,a red box,no\n")
    with pytest.raises(DataError, match=r"no field 'image' or 'video' and 'caption' \(it has photo, said, comment\)"):
        captions(file)
    assert captions(file, fields={"image": "photo", "caption": "said"}).texts == ["a red box"]
    assert captions(file, fields={"image": "photo"}).texts == ["no"]
    with pytest.raises(DataError, match=r"no field 'nope' .* data\.fields names it as the caption"):
        captions(file, fields={"image": "photo", "caption": "nope"})
    asked = write("q.json", [{"image": "000.jpg", "asked": "What?", "said": ["x"], "answers": ["no"]}])
    assert questions(asked, fields={"question": "asked", "answer": "said"}).answers == [{"x": 1.0}]
    with pytest.raises(ConfigError, match=r"data\.fields: 'imge' is not a known field; did you mean image\?"):
        DataConfig(fields={"imge": "photo"})


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("cc3m.tsv", "a red box\thttps://example.com/000.jpg\n", "is a URL, not a file: download it first"),
        ("laion.jsonl", '{"url": "http://x/y", "caption": "z"}\n', "has the URL of a picture, not a file"),
        ("a.csv", "image,image,caption\n000.jpg,1,x\n", "two columns are called 'image': rename one"),
        ("a.csv", "1,000.jpg,a dog\n", "its first line should name the columns: image,caption"),
        ("a.json", {"val": ROWS, "test": ROWS}, "has val, test, no split train"),
        ("a.json", [{"conversations": [{"from": "gpt", "value": "x"}]}], "the conversation has no picture"),
        ("00001.tar", None, "is a tar archive (a shard of img2dataset or WebDataset): unpack it, and name the folder"),
        ("a.xlsx", b"PK\x03\x04rest", "is a zip archive or an Excel sheet"),
        ("a.csv", "image,caption\n".encode("utf-16"), "is text in UTF-16: save it in UTF-8"),
        ("a.jsonl", b"\x00\x01\x02", "is a binary file"),
        ("a.json.gz", gzip.compress(b'[{"image": "000.jpg"', mtime=0)[:-9], "cannot be read"),
        ("a.json", '{"a": ' * 100_000, "is not JSON (it nests too deep)"),
        ("a.jsonl", "[" * 100_000, "is not JSON"),
        ("a.csv", 'image,caption\n000.jpg,x\n001.jpg,"y\n002.jpg,z\n', "a quote is opened but never closed"),
        ("a.json", {f"v{n}": {"duration": n} for n in range(9000)}, "(read as an object of id to record)"),
        ("a.json", {f"field {n} " + "x" * 99: n for n in range(9000)}, "(it has 9,000 fields, field 0 xxxxxxxxxxxxx"),
        ("a.json", [{"imagge": "000.jpg", "captoin": "x"}], "set data.fields to {image: imagge, caption: captoin}"),
    ],
)  # fmt: skip
def test_errors_name_the_layout_and_the_remedy(
    write: Write, pictures: Path, name: str, content: Any, message: str
) -> None:
    if content is None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("0.txt"), io.BytesIO())
        content = stream.getvalue()
    file = write(name, content)
    with pytest.raises(DataError) as error:
        captions(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert len(str(error.value)) <= 300


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is not a regular file"):
        captions(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"annotation file https://x/a\.json is a URL: download it"):
        load_retrieval("https://x/a.json", DataConfig(), "train")
    with pytest.raises(DataError, match="does not exist") as error:
        captions(tmp_path / ("x" * 100_000))
    assert len(str(error.value)) <= 300


def test_gzip_that_expands_to_gigabytes_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotation_file, "_MAX_BYTES", 1 << 20)
    monkeypatch.setattr(annotation_file, "_MAX_LINE_BYTES", 1 << 20)
    blank = b" " * (1 << 22)
    with pytest.raises(DataError, match="it holds more than 0 MB"):
        captions(write("a.json.gz", gzip.compress(b"[" + blank)))
    with pytest.raises(DataError, match="a line is longer than 1 MB"):
        captions(write("a.jsonl.gz", gzip.compress(b'{"image": ' + blank)))


def test_long_names_and_half_characters_are_cut(write: Write, pictures: Path) -> None:
    rows = [{"image": "x" * 100_000, "caption": "a"}, {"image": "\ud83d.jpg", "caption": "b"}]
    rows += [{"image": "000.jpg", "caption": "a \ud83d"}, {"image": "000.jpg", "caption": "fine"}]
    for row in rows[:3]:
        with pytest.raises(DataError) as error:
            captions(write("one.json", [row]))
        assert len(str(error.value).encode()) <= 310
    split = captions(write("all.json", rows), on_error="skip")
    assert split.texts == ["fine"]
    assert split.skipped == {"missing picture": 2, "broken caption": 1}


def test_ids_of_every_kind(write: Write, pictures: Path) -> None:
    file = write("a.csv", "image,caption,image_id\n000.jpg,x,12.0\n000.jpg,y,12\n001.jpg,z,a.0\n")
    assert captions(file).visual_ids == ["12", "a.0"]
    rows = [{"image": "000.jpg", "question": "q", "answer": "a", "question_id": 3.0}] * 2
    split = questions(write("q.json", rows))
    assert split.question_ids == [3, 3]
    assert "1 repeated question ids" in split.summary()
    assert "1 repeated questions of the same picture" in split.summary()
    for wrong in (True, [1], {}, 1.5):
        with pytest.raises(DataError, match="field 'image_id' is of type"):
            captions(write("b.json", [{"image": "000.jpg", "caption": "x", "image_id": wrong}]))


def test_numbers_and_windows_paths_are_converted_and_counted(write: Write, tmp_path: Path) -> None:
    write("sub/a.jpg", picture(1))
    rows = [
        {"image": "sub\\a.jpg", "question": "How many?", "answer": 2},
        {"image": "sub\\a.jpg", "question": "x", "answer": "y"},
    ]
    split = questions(write("q.json", rows))
    assert split.visuals == [tmp_path / "sub/a.jpg"]
    assert captions(write("c.json", [{"image": "sub/a", "caption": "x"}])).visuals == split.visuals
    assert "1 numbers, true and false read as answers" in split.summary()


def test_home_is_unfolded(write: Write, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("elsewhere/a.json", ROWS)
    monkeypatch.setenv("HOME", str(pictures))
    assert pairs(load_retrieval("~/elsewhere/a.json", DataConfig(root="~"), "train")) == TWO


def test_parquet(write: Write, pictures: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    file = pictures / "a.parquet"
    columns = {"file_name": ["000.jpg", "001.jpg"], "text": ["a red box", "a ball, blue"], "image_id": [1.0, 2.0]}
    parquet.write_table(arrow.table(columns), file)
    found = captions(file)
    assert (pairs(found), found.visual_ids) == (TWO, [1, 2])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="is not a complete Parquet file"):
        captions(file)
    parquet.write_table(arrow.table({"image": [{"bytes": b"x", "path": "a"}], "text": ["y"]}), file)
    with pytest.raises(DataError, match=r"contains the pictures themselves \(column 'image'\)"):
        captions(file)


def test_parquet_names_its_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"is Parquet: pip install 'uniadapter\[parquet\]'"):
        captions(write("a.parquet", b"PAR1rest"))


def test_every_layout_is_in_the_documentation(write: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for layout in REGISTRY:
        assert f"| `{layout.name}` |" in page, layout.name
    assert detect_layout(write("dataset_coco.json", karpathy())) == "karpathy"
