"""Published layouts of MSR-VTT, DiDeMo and other video datasets."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from uniadapter.app.parsing import UsageError, config_path, parse_run, read_config
from uniadapter.config import ConfigError, DataConfig, LayoutName
from uniadapter.data.captions import from_dataset, load_retrieval
from uniadapter.data.layouts.msrvtt import training_split
from uniadapter.data.layouts.records import DataError, ErrorPolicy
from uniadapter.data.layouts.registry import LAYOUTS, detect_layout, read_records
from uniadapter.data.media.file_kinds import VIDEO_SUFFIXES
from uniadapter.data.media.paths import find_visual
from uniadapter.data.splits import RetrievalSplit

Write = Callable[[str, Any], Path]
MSRVTT = {
    "info": {"year": "2016"},
    "videos": [{"video_id": f"video{n}", "split": "train", "category": 1} for n in range(5)],
    "sentences": [
        {"video_id": "video1", "caption": "A man sings.", "sen_id": 0},
        {"video_id": "video0", "caption": "a car, driving", "sen_id": 1},
        {"video_id": "video4", "caption": "of the test", "sen_id": 2},
        {"video_id": "video1", "caption": "someone sings", "sen_id": 3},
        {"video_id": "video2", "caption": "a dog", "sen_id": 4},
    ],
}
DIDEMO = [
    {"video": "b@N00_2.mov", "description": "the dog runs. ", "times": [[0, 0], [1, 1]], "annotation_id": 3},
    {"video": "a@N00_1.mp4", "description": "A Man Waves", "times": [[2, 2]], "annotation_id": 1},
    {"video": "other@N00_9.mp4", "description": "of another split", "times": [[0, 0]], "annotation_id": 7},
    {"video": "b@N00_2.mov", "description": "it sits", "times": [[4, 5]], "annotation_id": 2},
    {"video": "a@N00_1.mp4", "description": "he leaves", "times": [[5, 5]], "annotation_id": 4},
]


@pytest.fixture
def place(write: Write) -> Callable[..., None]:
    """Put videos of one byte below `videos/`: what is in them is not looked at when a split is read."""

    def place(*names: str) -> None:
        for name in names:
            write(f"videos/{name}", b"\0")

    return place


def load(file: Path, name: str = "train", **more: Any) -> RetrievalSplit:
    config = DataConfig(root=str(file.parent / "videos"), **more)
    return load_retrieval(file, config, name, check=False)  # one byte decodes to nothing


def content(split: RetrievalSplit) -> list[tuple[str, str | int, str]]:
    """File, id and caption of every sample."""
    return [
        (Path(str(split.visuals[visual])).name, split.visual_ids[visual], text)
        for text, visual in zip(split.texts, split.text_visual, strict=True)
    ]


def refused(file: Path, message: str, **more: Any) -> DataError:
    """The error of a split that cannot be read: one line, which starts with the file or has the message in it."""
    with pytest.raises(DataError, match=re.escape(message)) as error:
        load(file, **more)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize("name", ["msrvtt_test.jsonl", "train.jsonl"])
def test_alpro_and_blip(write: Write, place: Callable[..., None], name: str) -> None:
    file = write(
        name,
        '{"clip_name": "video9770", "caption": "a person is connecting something.", "sen_id": 1}\n'
        '{"clip_name": "video9771", "caption": "a man"}\n{"clip_name": "video9770", "caption": "again"}\n',
    )
    place("video9770.mp4", "video9771.avi")
    split = load(file)
    assert detect_layout(file) == "alpro"
    assert content(split) == [
        ("video9770.mp4", "video9770", "a person is connecting something"),
        ("video9771.avi", "video9771", "a man"),
        ("video9770.mp4", "video9770", "again"),
    ]
    assert split.origins == [f"{file}:1", f"{file}:2"]
    assert split.summary() == "train: 2 videos, 3 captions"


@pytest.mark.parametrize("name", ["MSRVTT_train.9k.csv", "MSRVTT_train.7k.csv"])
def test_msrvtt_list_with_its_sentences(write: Write, place: Callable[..., None], name: str) -> None:
    captions = write("MSRVTT_data.json", MSRVTT)
    file = write(name, "video_id\nvideo0\nvideo1\nvideo2\n")
    place(*(f"video{n}.mp4" for n in range(5)))
    split = load(file, captions=str(captions))
    assert content(split) == [
        ("video0.mp4", "video0", "a car, driving"),
        ("video1.mp4", "video1", "a man sings"),
        ("video1.mp4", "video1", "someone sings"),
        ("video2.mp4", "video2", "a dog"),
    ]
    assert split.origins[1] == f"{captions}.sentences[0]"
    variant, number = ("9k", "9,000") if "9k" in name else ("7k", "7,010")
    assert split.summary() == (
        f"train: 3 videos, 4 captions; {name} lists 3 videos, not the {number} of MSR-VTT's {variant} training split; "
        "3 listed, 3 found"
    )


def test_msrvtt_test_has_its_own_sentences(write: Write, place: Callable[..., None]) -> None:
    file = write(
        "MSRVTT_JSFUSION_test.csv",
        'key,vid_key,video_id,sentence\nret0,msr1,video1,"a man, singing"\nret1,msr0,video0,a car\n',
    )
    place("video0.mp4", "video1.mp4")
    captions = str(write("MSRVTT_data.json", MSRVTT))  # is for the training list, and leaves the test's alone
    for config in ({}, {"captions": captions}):
        split = load(file, "test", **config)
        assert content(split) == [("video1.mp4", "video1", "a man, singing"), ("video0.mp4", "video0", "a car")]
        assert split.summary() == "test: 2 videos, 2 captions; 2 listed, 2 found"


@pytest.mark.parametrize(
    ("file", "listed", "line"),
    [
        ("MSRVTT_train.9k.csv", 9000, "the 9k training split of MSR-VTT (9,000 videos in MSRVTT_train.9k.csv)"),
        ("MSRVTT_train.7k.csv", 7010, "the 7k training split of MSR-VTT (7,010 videos in MSRVTT_train.7k.csv)"),
        ("train.jsonl", 7010, "the 7k training split of MSR-VTT (7,010 videos in train.jsonl)"),
        (
            "MSRVTT_train.9k.csv", 7010,
            "MSRVTT_train.9k.csv lists 7,010 videos, not the 9,000 of MSR-VTT's 9k training split",
        ),
        ("MSRVTT_JSFUSION_test.csv", 1000, None),
    ],
)  # fmt: skip
def test_the_training_split_is_named(file: str, listed: int, line: str | None) -> None:
    assert training_split(file, ["video1", "video22.mp4"], listed) == line
    assert training_split(file, ["video1", "a/b.jpg"], listed) is None


def test_the_7k_split_of_alpro_is_named_by_its_number(write: Write, place: Callable[..., None]) -> None:
    place("video0.mp4")
    lines = "".join(f'{{"clip_name": "video{n}", "caption": "x"}}\n' for n in range(7010))
    split = load(write("train.jsonl", lines), on_error="skip")
    assert "the 7k training split of MSR-VTT (7,010 videos in train.jsonl)" in split.summary()
    assert split.skipped == {"missing video": 7009}


def test_didemo_joins_the_sentences_of_a_video(write: Write, place: Callable[..., None]) -> None:
    file = write("train_data.json", DIDEMO)
    write("train_list.txt", "a@N00_1.mp4\nb@N00_2.mov\n\n")
    place("a@N00_1.mp4", "b@N00_2.mov")
    split = load(file)
    assert content(split) == [
        ("b@N00_2.mov", "b@N00_2.mov", "the dog runs it sits"),
        ("a@N00_1.mp4", "a@N00_1.mp4", "a man waves he leaves"),
    ]
    assert split.origins == [f"{file}[0]", f"{file}[1]"]
    assert split.summary() == "train: 2 videos, 2 captions; 2 listed, 2 found; all sentences about a video are one text"


def test_didemo_without_its_list_takes_every_video(write: Write, place: Callable[..., None]) -> None:
    place("a@N00_1.mp4", "b@N00_2.mov", "other@N00_9.mp4")
    split = load(write("val_data.json", DIDEMO), "val")
    assert [text for _, _, text in content(split)] == [
        "the dog runs it sits", "a man waves he leaves", "of another split",
    ]  # fmt: skip


def test_missing_didemo_videos_are_counted_in_the_summary(
    write: Write, place: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    file = write("test_data.json", DIDEMO)
    write("test_list.txt", "b@N00_2.mov\na@N00_1.mp4\nsilent.mp4\n")
    place("b@N00_2.mov")
    missing = (
        rf"{re.escape(str(file))}\[1\]: video .*a@N00_1\.mp4 does not exist: set data\.root .*data\.on_error to skip"
    )
    with pytest.raises(DataError, match=missing):
        load(file, "test")
    with caplog.at_level(logging.INFO):
        split = load(file, "test", on_error="skip")
    assert content(split) == [("b@N00_2.mov", "b@N00_2.mov", "the dog runs it sits")]
    assert split.skipped == {"missing video": 1, "video without a caption": 1}
    line = (
        "test: 1 videos, 1 captions; 3 listed, 1 found; all sentences about a video are one text; "
        "left out: 1 missing video, 1 video without a caption"
    )
    assert split.summary() == line
    assert line in caplog.text
    assert f"{file.with_name('test_list.txt')}:3: {file} has no sentence about video silent.mp4" in caplog.text


def test_paragraphs_in_the_layout_of_umt(write: Write, place: Callable[..., None]) -> None:
    place("1.mp4", "2.mp4")
    rows = [{"video": "1.mp4", "caption": ["One.", "two"]}, {"video": "2.mp4", "caption": ["three", "four", "five"]}]
    assert load(write("didemo_ret_test.json", rows), "test").texts == ["one two", "three four five"]
    other = write("anet_ret_test.json", rows)  # nothing in it tells a paragraph from several captions
    assert load(other, "test").texts == ["one", "two", "three", "four", "five"]
    assert load(other, "test", layout="didemo").texts == ["one two", "three four five"]


@pytest.mark.parametrize(
    ("name", "visual", "split"),
    [
        ("retrieval_train.json", "video", "train"),
        ("retrieval_test.json", "video", "test"),
        ("msrvtt_ret_train.json", "image", "train"),
        ("msrvtt_ret_test1k.json", "image", "test"),
    ],
)
def test_lavis_and_umt(write: Write, place: Callable[..., None], name: str, visual: str, split: str) -> None:
    place("all/video7.mp4", "all/video8.mp4")
    rows = [{visual: "all/video7.mp4", "caption": "a"}, {visual: "all/video8.mp4", "caption": "b"}]
    if split == "test":
        rows = [{visual: "all/video7.mp4", "caption": ["a"]}, {visual: "all/video8.mp4", "caption": ["b", "c"]}]
    found = load(write(name, rows), split)
    assert content(found) == [
        ("video7.mp4", "all/video7.mp4", "a"),
        ("video8.mp4", "all/video8.mp4", "b"),
        *([("video8.mp4", "all/video8.mp4", "c")] if split == "test" else []),
    ]
    assert found.noun == "videos"


def test_own_files_of_videos_folders_and_pictures(write: Write, place: Callable[..., None]) -> None:
    place("x/a.webm", "frames/0001.jpg", "frames/0002.jpg", "still.png")
    file = write("own.csv", "video,caption,video_id\nx/a.webm,one,7\nframes,two,8\nx/a.webm,three,7\n")
    split = load(file)
    assert content(split) == [("a.webm", "7", "one"), ("frames", "8", "two"), ("a.webm", "7", "three")]
    lines = '{"image": "still.png", "caption": "x"}\n{"image": "frames", "caption": "y"}\n'
    mixed = load(write("own.jsonl", lines))
    assert mixed.summary() == "train: 2 visuals, 2 captions"
    assert content(from_dataset([{"image": file.parent / "videos/x/a.webm", "caption": "z"}]))[0][2] == "z"


def test_evaluation_skips_visuals_that_cannot_be_decoded(write: Write, place: Callable[..., None]) -> None:
    place("a.mp4", "broken.png")
    write("videos/sound.png", Image.new("RGB", (8, 8)))
    rows = [
        {"video": "a.mp4", "caption": "x"},
        {"image": "broken.png", "caption": "y"},
        {"image": "sound.png", "caption": "z"},
    ]
    file = write("own.json", rows)
    split = load_retrieval(file, DataConfig(root=str(file.parent / "videos"), on_error="skip"), "test")
    assert content(split) == [("sound.png", "sound.png", "z")]
    assert sum(split.skipped.values()) == 2
    assert split.skipped["corrupt picture"] == 1
    assert len(load(file, "train").visuals) == 3  # a training split is not looked into


def test_where_a_video_is_looked_for(tmp_path: Path) -> None:
    wanted = tmp_path / "a@N00.5.mov"
    (tmp_path / "a@N00.5").mkdir()
    assert find_visual(wanted, "video") is None  # an empty folder holds no frames
    for name in ("a@N00.5/1.png", "a@N00.5.mov.mp4", "a@N00.5.avi", "a@N00.5.mp4", "a@N00.5.mov"):
        (tmp_path / name).write_bytes(b"\0")
        found = tmp_path / name if name[-2:] != "ng" else tmp_path / "a@N00.5"
        assert find_visual(wanted, "video") == found
    assert find_visual(tmp_path / "a@N00.5.jpg", "picture") is None
    assert VIDEO_SUFFIXES[0] == ".mp4"


def test_two_videos_are_never_one_file(write: Write, place: Callable[..., None]) -> None:
    place("a.mp4")
    rows = [{"video": "a.mp4", "caption": "x"}, {"video": "a.mov", "caption": "y"}]
    file = write("own.json", rows)
    assert refused(file, "would be used for both").kind == "file of two videos"
    assert load(file, on_error="skip").skipped == {"file of two videos": 1}


def test_cut_captions_are_counted(write: Write, place: Callable[..., None]) -> None:
    place("a.mp4", "b.mp4")
    rows = [{"video": "a.mp4", "caption": "one two. three"}, {"video": "b.mp4", "caption": "one two."}]
    split = load(write("own.json", rows), max_words=2)
    assert split.texts == ["one two", "one two"]
    assert split.summary() == "train: 2 videos, 2 captions; 1 captions cut to 2 words"


LIST = "video_id\nvideo1\n"
SENTENCE = {"video_id": "video1", "caption": "x"}


@pytest.mark.parametrize(
    ("sentences", "kind", "message"),
    [
        (
            [SENTENCE, {"video_id": "video99", "caption": "y"}],
            "unknown video_id",
            "[1]: video_id 'video99' is not in",
        ),
        ([SENTENCE, {"video_id": "video1"}], "missing field", "[1]: no field 'caption' (it has video_id)"),
        ([{"caption": "y"}, SENTENCE], "missing field", "[0]: no field 'video_id' (it has caption)"),
        ([SENTENCE, "y"], "not an object", "[1] is of type str"),
        ([SENTENCE, {"video_id": 1, "caption": "y"}], "unusable video_id", "[1]: field 'video_id' is of type int"),
        ([SENTENCE, {"video_id": "video1", "caption": 5}], "unusable caption", "[1]: field 'caption' is of type int"),
    ],
)
def test_bad_sentences(write: Write, place: Callable[..., None], sentences: list[Any], kind: str, message: str) -> None:
    place("video1.mp4")
    captions = write("MSRVTT_data.json", {**MSRVTT, "sentences": sentences})
    file = write("MSRVTT_train.9k.csv", LIST)
    assert refused(file, f"{captions}.sentences{message}", captions=str(captions)).kind == kind
    split = load(file, captions=str(captions), on_error="skip")
    assert (split.texts, split.skipped) == (["x"], {kind: 1})


def test_bad_rows_of_videos(write: Write, place: Callable[..., None]) -> None:
    place("video1.mp4", "a.mp4")
    alpro = write("train.jsonl", '{"clip_name": "video1", "caption": "x"}\n{"clip_name": "video1"}\n')
    refused(alpro, f"{alpro}:2: no field 'caption' (it has clip_name)")
    alpro = write("val.jsonl", '{"clip_name": " ", "caption": "x"}\n')
    refused(alpro, f"{alpro}:1: field 'clip_name' is empty: it should be the name of a video")
    didemo = write("train_data.json", [{**DIDEMO[0], "video": "a.mp4"}, {"video": "a.mp4", "times": []}])
    refused(didemo, f"{didemo}[1]: no field 'description' or 'caption' (it has video, times)")
    didemo = write("val_data.json", [{**DIDEMO[0], "video": "a.mp4"}, {**DIDEMO[0], "description": " "}])
    refused(didemo, f"{didemo}[1]: the description is empty")
    both = write("own.json", [{"video": "a.mp4", "image": "a.png", "caption": "x"}])
    assert refused(both, f"{both}[0]: has both 'image' and 'video'").kind == "image and video"
    out = write("out.json", [{"video": "../a.mp4", "caption": "x"}])
    assert refused(out, f"{out}[0]: video ../a.mp4 is outside the data folder").kind == "path outside the data folder"
    out = write("out.jsonl", '{"clip_name": "x/../../video1", "caption": "x"}\n')
    refused(out, f"{out}:1: video x/../../video1.mp4 is outside the data folder")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_files_that_cannot_be_used(write: Write, place: Callable[..., None], on_error: Any) -> None:
    place("video1.mp4", "a@N00_1.mp4")
    captions = write("MSRVTT_data.json", MSRVTT)
    file = write("MSRVTT_train.9k.csv", LIST)
    refused(file, f"{file} lists videos without captions: set data.captions to the file", on_error=on_error)
    refused(file, f"annotation file {file}x does not exist", captions=f"{file}x", on_error=on_error)
    refused(file, f"{file} is not JSON", captions=str(file), on_error=on_error)
    own = write("own.json", [])
    refused(file, f"{own} has no lists 'videos' and 'sentences'", captions=str(own), on_error=on_error)
    empty = write("empty.csv", "video_id\n")
    refused(empty, f"{empty} lists no video: check the file", captions=str(captions), on_error=on_error)
    message = f"{captions} holds the captions of all splits: set data.captions to it"
    refused(captions, message, captions=str(captions), on_error=on_error)
    write("train_list.txt", " \n\n")
    refused(write("train_data.json", DIDEMO), "train_list.txt lists no video", on_error=on_error)
    write("val_list.txt", b"\xff")
    refused(write("val_data.json", DIDEMO), "val_list.txt is not text in UTF-8", on_error=on_error)


def test_a_listed_video_without_a_caption(write: Write, place: Callable[..., None]) -> None:
    captions = str(write("MSRVTT_data.json", MSRVTT))
    file = write("MSRVTT_train.9k.csv", "video_id\nvideo1\nvideo3\n")
    place("video1.mp4", "video3.mp4")
    refused(file, f"{file}:3: {captions} has no caption of video video3", captions=captions)
    split = load(file, captions=captions, on_error="skip")
    assert split.skipped == {"video without a caption": 1}
    assert "2 listed, 1 found" in split.summary()


def test_layouts_by_name(write: Write, place: Callable[..., None]) -> None:
    place("a.mp4")
    file = write("own.json", [{"video": "a.mp4", "caption": ["x", "y"]}])
    assert load(file, layout="pairs").texts == ["x", "y"]
    unknown = "data.layout is 'lmdb': it must be one of auto, pairs, alpro, msrvtt, didemo"
    with pytest.raises(ConfigError, match=unknown):
        load(file, layout="lmdb")
    with pytest.raises(DataError, match=unknown):
        list(read_records(file, ErrorPolicy(), "lmdb"))
    assert set(get_args(LayoutName)) == {"auto", *LAYOUTS}
    refused(file, f"{file}[0]: no field 'clip_name' (it has video, caption)", layout="alpro")
    with pytest.raises(UsageError) as error:
        parse_run("train", ["--data.layout", "lmdb"], lambda parser: None)
    assert all(name in str(error.value) for name in ("data.layout", "lmdb", *LAYOUTS))


def test_detection_reads_only_the_first_row(write: Write) -> None:
    long = write("long.json", '[ {"clip_name": "a", "caption": "x"}, ' + "broken")
    assert detect_layout(long) == "alpro"
    assert detect_layout(write("pretty.json", '{\n "videos": [],\n "sentences": []\n}')) == "msrvtt"
    assert detect_layout(write("odd.json", "[1, 2]")) == "pairs"
    assert detect_layout(write("own.json", [{"image": "a", "caption": "x", "description": "y"}])) == "pairs"
    with pytest.raises(DataError, match="is empty"):
        detect_layout(write("none.json", " \n"))


def test_the_published_configs_are_complete_and_sourced() -> None:
    for name, frames, eval_frames in (("msrvtt", 8, 8), ("didemo", 8, 16)):
        config = read_config(config_path(name))
        assert (config.data.frames, config.data.eval_frames) == (frames, eval_frames)
        assert (config.model.image_size, config.model.max_tokens, config.evaluate.k) == (224, 35, 128)
        assert (config.train.lr, config.train.epochs) == (1e-4, 5)
        assert (config.model.adapter.key_value, config.model.adapter.frame_aware) == (64, True)
        lines = config_path(name).read_text().splitlines()
        places = ("task", "output", "base", "method", "train", "captions", "val", "test", "root")
        commented = False
        for line in lines:
            setting = re.match(r" *(\w+): *[^ #]", line)
            if setting and setting[1] not in places:
                assert commented or "[" in line.split("#")[1] or "not published: our choice" in line, line
            commented = line.lstrip().startswith("#")


@pytest.mark.parametrize("name", ["frames", "eval_frames", "max_words", "together"])
def test_numbers_of_frames_and_words_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{name} is -1: it must be at least"):
        DataConfig(**{name: -1})
