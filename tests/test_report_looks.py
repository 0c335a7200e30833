"""The page's pictures of attention, hard negatives among results, and rows of variants."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from test_report import Page, picture, row, sample
from uniadapter import report
from uniadapter.report.tables import method_label, series_name
from uniadapter.report.word_looks import looks_section

LABELS = ("before · zero-shot", "after · UniAdapter")


def decoded(source: str | None) -> Image.Image:
    assert source is not None
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")


def test_colour_is_where_attention_is() -> None:
    red = Image.new("RGB", (120, 60), (200, 0, 0))
    shares = np.zeros((1, 2, 4), dtype=np.float32)
    shares[0, 1, 3] = 0.8
    (shown,) = report.spotlights([red], shares)
    assert shown.size == (120, 60)
    assert shown.getpixel((115, 55)) == (200, 0, 0)
    r, g, b = shown.getpixel((5, 5))  # type: ignore[misc]
    assert r == g == b < 60


def test_attention_that_is_spread_evenly_is_not_lit() -> None:
    white = Image.new("RGB", (40, 40), "white")
    (shown,) = report.spotlights([white], np.full((1, 6, 6), 1 / 36, dtype=np.float32))
    assert shown.getpixel((20, 20))[0] < 170  # type: ignore[index]
    assert max(high - low for low, high in shown.getextrema()) == 0  # type: ignore[misc, operator]


def test_frames_of_a_clip_are_lit_on_one_scale() -> None:
    frames = [Image.new("RGB", (40, 40), "blue")] * 2
    shares = np.zeros((2, 2, 2), dtype=np.float32)
    shares[0, 0, 0], shares[1, 0, 0] = 0.8, 0.2
    one, other = report.spotlights(frames, shares)
    assert one.getpixel((1, 1))[2] == 255  # type: ignore[index]
    assert other.getpixel((1, 1))[2] < 160  # type: ignore[index]


def look(word: str = "square", frames: int = 1) -> report.WordLook:
    maps = np.random.default_rng(0).random((frames, 3, 3)).astype(np.float32) / 9 / frames
    shares = [1 / frames] * frames if frames > 1 else ()
    return report.WordLook(word, maps, maps[:, ::-1], shares, shares)


def test_a_card_shows_its_words_before_and_after(tmp_path: Path) -> None:
    right = picture(tmp_path / "right.png")
    items = [report.RankedItem(right, correct=True)]
    query = report.QueryExample("a <red> square", items, items, 1, 1, right, looks=[look("<red>"), look()])
    question = report.TextExample(right, "is it a square?", ["yes"], [("yes", 0.5)], [("yes", 0.9)], looks=[look()])
    for example, words in ((query, 2), (question, 1)):
        text = report.write_report(tmp_path, sample(), [example], looks_note="How it was made.").read_text()
        page = Page(text)
        assert page.open == []
        assert "How it was made." in text
        spoken = [image["alt"] for image in page.images if "looks" in (image["alt"] or "")]
        assert len(spoken) == 2 * words
        assert spoken[-1] == "where “square” looks after"
        assert f"--n:{words}" in text
        assert "in the right picture" in text if example is query else "in the picture" in text
        assert "<red>" not in text


def test_clips_have_their_frames_shares_below(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(4):
        picture(tmp_path / f"clip/{number}.png", ("red", "green", "blue", "white")[number], (64, 64))
    clip = tmp_path / "clip"
    items = [report.RankedItem(clip, correct=True, frames=4)]
    query = report.QueryExample("q", items, items, 1, 1, clip, looks=[look(frames=4)], frame_weights=[1.2, 1, 1, 0.8])
    text = report.write_report(tmp_path, sample(), [query]).read_text()
    assert Page(text).open == []
    assert text.count("<i>25%</i>") == 8
    assert "<i>1.20</i><i>1.00</i><i>1.00</i><i>0.80</i>" in text
    assert "where words look in the right clip" in text
    lit = decoded(re.findall(r'src="(data:[^"]+)" alt="where', text)[0])
    assert lit.width == 4 * 64 + 3 * 4


def test_words_of_a_long_clip_stand_below_one_another(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(8):
        picture(tmp_path / f"clip/{number}.png", size=(64, 64))
    both = [look("one", 8), look("other", 8)]
    text = looks_section(both, tmp_path / "clip", "clip", LABELS, report.Thumbnails())
    assert text.count('class="looks strips" style="--n:1"') == 2
    one_side = report.WordLook("word", None, both[0].after)
    assert looks_section([one_side], tmp_path / "clip", "clip", LABELS, report.Thumbnails()).count("<img") == 1
    neither = report.WordLook("word", None, None)
    assert looks_section([neither], tmp_path / "clip", "clip", LABELS, report.Thumbnails()) == ""


def test_a_picture_that_is_gone_is_said_and_not_made_again(tmp_path: Path) -> None:
    thumbnails = report.Thumbnails()
    text = looks_section([look()], tmp_path / "gone.png", "picture", LABELS, thumbnails)
    assert text.count("no picture") == 2
    assert looks_section([], tmp_path / "gone.png", "picture", LABELS, thumbnails) == ""
    assert looks_section([look()], None, "picture", LABELS, thumbnails) == ""


def test_pictures_are_made_once_for_several_pages(tmp_path: Path) -> None:
    right = picture(tmp_path / "right.png")
    query = report.QueryExample("q", [], [report.RankedItem(right, correct=True)], 1, 1, right, looks=[look()])
    kept = report.Thumbnails()
    first = report.write_report(tmp_path, sample(), [query], thumbnails=kept).read_text()
    right.unlink()
    assert report.write_report(tmp_path, sample(), [query], thumbnails=kept).read_text() == first


def test_hard_negatives_are_framed_and_explained(tmp_path: Path) -> None:
    right, twin = picture(tmp_path / "right.png"), picture(tmp_path / "twin.png", "blue")
    items = [report.RankedItem(twin, hard_negative=True), report.RankedItem(right, correct=True)]
    text = report.write_report(tmp_path, sample(), [report.QueryExample("q", items, items, 2, 2)]).read_text()
    assert text.count('<li class="near">') == 2
    assert "place 1, a hard negative of the right one: twin" in text
    assert "a hard negative: a picture of the same group" in text
    plain = report.write_report(tmp_path, sample(), [report.QueryExample("q", items[1:], items[1:], 1, 1)]).read_text()
    assert "hard negative" not in plain.partition("</style>")[2]


def test_a_variant_has_its_own_name_and_colour_and_no_file(tmp_path: Path) -> None:
    variant = row("uniadapter", 4.0, setting="without the fused part", checkpoint_bytes=0)
    metrics = sample() | {"rows": [*sample()["rows"], variant]}
    name = series_name("uniadapter", "without the fused part")
    assert method_label(name) == "UniAdapter · without the fused part"
    steps = [{"step": step, "loss": 1 / step} for step in (1, 2)]
    text = report.write_report(tmp_path, metrics, history={"uniadapter": steps, name: steps}).read_text()
    dots = dict(re.findall(r'<i class="dot (c\d)"></i>([^<]+)</th>', text))
    assert len(dots) == 3
    line = text[text.index("UniAdapter · without the fused part</th>") :].partition("</tr>")[0]
    assert "<b>\N{EN DASH}</b>" not in line


def test_accuracies_by_type_are_a_table(tmp_path: Path) -> None:
    rows = [
        row("zero_shot", accuracy=40.0, by_answer_type={"is there": 50.0, "count": 30.0}),
        row("uniadapter", accuracy=60.0, by_answer_type={"is there": 81.26, "count": 40.0, "left": None}),
    ]
    for one in rows:
        del one["text_to_image"], one["image_to_text"]
    text = report.write_report(tmp_path, sample() | {"task": "vqa", "rows": rows}).read_text()
    assert Page(text).open == []
    assert "<h3>Accuracy by type</h3>" in text
    assert '<td data-label="is there"><b>81.3</b></td>' in text
    assert '<td data-label="count">30.0</td>' in text
    assert text.count('<td data-label="left">\N{EN DASH}</td>') == 2
    plain = [row("uniadapter", accuracy=60.0, by_answer_type={"": 60.0})]
    assert "by type" not in report.write_report(tmp_path, sample() | {"rows": plain}).read_text()


def test_answers_of_no_probability_are_left_out_unless_right(tmp_path: Path) -> None:
    given = [("yes", 0.7), ("no", 0.29), ("ant", 0.004), ("lion", 0.001)]
    example = report.TextExample(picture(tmp_path / "x.png"), "is it?", ["lion"], [("nothing", 0.001)], given)
    text = report.write_report(tmp_path, sample(), [example]).read_text()
    shown = re.findall(r"<li[^>]*><span>(\w+)</span>", text)
    assert shown == ["nothing", "yes", "no", "lion"]


def test_a_caption_card_is_headed_by_one_caption_and_folds_the_others(tmp_path: Path) -> None:
    said = ["a red <b>", "a square", "a box"]
    example = report.TextExample(picture(tmp_path / "x.png"), "", said, [("a cat", None)], [("a square", None)])
    text = report.write_report(tmp_path, sample(), [example]).read_text()
    assert Page(text).open == []
    assert "<h3>a red &lt;b&gt;</h3>" in text
    assert "<summary>2 more</summary>a square · a box</details>" in text
    assert '<li class="whole"><span>a cat</span>' in text
    assert '<li class="whole right"><span>a square</span>' in text
