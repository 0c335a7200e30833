"""Reports: schema of metrics.json, atomic writing, tables, curves and the page."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from uniadapter import report
from uniadapter.files.writing import WriteError
from uniadapter.report.plots import PALETTE, _smoothed, colour_index
from uniadapter.report.query_cards import rank_changes
from uniadapter.report.tables import NO_VALUE, percent_text, size_text
from uniadapter.report.thumbnails import Thumbnails

SCORES = {"r@1": 40.0, "r@5": 70.5, "r@10": 80.25, "median_rank": 2.0, "mean_rank": 7.125}


def row(method: str, shift: float = 0.0, **more: Any) -> dict[str, Any]:
    scores = {key: value + shift for key, value in SCORES.items()}
    twins = {f"{key}_itc": value - 1 for key, value in scores.items()}
    return {
        "method": method,
        "trainable_parameters": 0 if method == "zero_shot" else 224128,
        "trainable_percent": 0.0 if method == "zero_shot" else 1.9812,
        "adapter_percent": 0.0 if method == "zero_shot" else 1.7,
        "checkpoint_bytes": 0 if method == "zero_shot" else 912344,
        "seconds": 312.44,
        "text_to_image": {**scores, **twins},
        "image_to_text": {**scores, **twins},
        **more,
    }


def sample() -> dict[str, Any]:
    return {
        "task": "retrieval",
        "seed": 0,
        "base": "embedded",
        "versions": {"torch": "2.13"},
        "total_seconds": 75.0,
        "rows": [row("zero_shot"), row("uniadapter", 5.0, trainable_percent_without_embeddings=2.2)],
    }


def history(steps: int = 8) -> dict[str, list[dict[str, Any]]]:
    return {
        method: [
            {"step": s, "epoch": 0, "loss": 3 / s, "contrastive": 2 / s, "matching": 1 / s, "lr": rate}
            for s in range(1, steps + 1)
        ]
        for method, rate in (("uniadapter", 1e-3), ("full_fine_tuning", 1e-5))
    }  # fmt: skip


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (300, 200)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class Page(HTMLParser):
    """What a browser would fetch, and whether every tag is closed."""

    VOID = frozenset({"meta", "img", "br", "use", "path", "link", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "poster")]
        self.ids += [v or "" for k, v in attrs if k == "id"]
        if tag == "img":
            self.images.append(values)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_metrics_round_trip_keeps_the_form(tmp_path: Path) -> None:
    path = report.write_metrics(tmp_path / "run/metrics.json", sample())
    assert json.loads(path.read_text()) == sample()
    metrics = report.read_metrics(path)
    assert metrics.to_dict() == sample()
    assert metrics.rows[1].text_to_image is not None
    assert metrics.rows[1].text_to_image["r@1_itc"] == 44.0
    assert metrics.rows[1].more == {"trainable_percent_without_embeddings": 2.2}
    assert metrics.more["base"] == "embedded"
    report.write_metrics(path, metrics)
    assert json.loads(path.read_text()) == sample()


def test_rows_of_other_tasks_and_variants_pass_through(tmp_path: Path) -> None:
    rows = [
        report.Row("uniadapter", 1, 1.0, 1.0, 1, 1.0, setting="r = 8", test_set="new", text_to_video={"r@1": 3.0}),
        report.Row("question_only", more={"accuracy": 51.0}),
    ]
    path = report.write_metrics(tmp_path / "metrics.json", report.Metrics("vqa", 3, rows))
    written = json.loads(path.read_text())["rows"]
    assert written[0]["text_to_video"] == {"r@1": 3.0}
    assert written[0]["setting"] == "r = 8"
    assert "text_to_image" not in written[0]
    assert "more" not in written[0]
    assert written[1]["accuracy"] == 51.0
    assert report.read_metrics(path).rows == rows


def test_a_number_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    metrics = sample()
    metrics["rows"][1]["text_to_image"]["r@1"] = float("nan")
    path = report.write_metrics(tmp_path / "metrics.json", metrics)
    assert json.loads(path.read_text())["rows"][1]["text_to_image"]["r@1"] is None
    assert NO_VALUE in report.markdown_table(report.read_metrics(path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": "0"}, "seed is '0', expected a whole number"),
        ({"rows": {}}, "rows is {}"),
        ({"rows": [3]}, "rows[0] is not an object"),
        ({"rows": [{}]}, "rows[0] has no method"),
        (
            {"rows": [{**row("uniadapter"), "seconds": None}]},
            "rows[0] (uniadapter): seconds is None, expected a number",
        ),
        ({"rows": [{**row("uniadapter"), "text_to_image": 5}]}, "text_to_image is not an object"),
    ],
)
def test_another_form_is_refused_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(sample() | change))
    with pytest.raises(report.ReportError) as caught:
        report.read_metrics(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    with pytest.raises(report.ReportError):
        report.write_metrics(tmp_path / "other.json", sample() | change)
    assert not (tmp_path / "other.json").exists()


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(report.ReportError, match="cannot be read"):
        report.read_metrics(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"task": ')
    with pytest.raises(report.ReportError, match="not JSON"):
        report.read_metrics(tmp_path / "half.json")


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = report.write_metrics(tmp_path / "metrics.json", sample())
    old = path.read_bytes()
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(WriteError, match=r"metrics\.json: could not be written \(No space left"):
        report.write_metrics(path, sample() | {"seed": 1})
    with pytest.raises(WriteError):
        report.write_report(tmp_path, sample())
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file/a"):
        report.write_metrics(tmp_path / "file/a", sample())


def test_history_is_read_by_method_and_a_torn_line_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert report.read_history(path) == {}
    path.write_text('{"step": 1, "loss": 2}\n{"step": 1, "loss": 3, "method": "full_fine_tuning"}\n[]\n{"step": 2, "lo')
    found = report.read_history(path)
    assert list(found) == ["uniadapter", "full_fine_tuning"]
    assert found["uniadapter"] == [{"step": 1, "loss": 2}]


def shown(metrics: report.MetricsLike) -> list[str]:
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(report.table(metrics))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_table_shows_both_directions_and_costs_within_100_columns() -> None:
    metrics = sample() | {"rows": [*sample()["rows"], row("full_fine_tuning", 9.875, test_set="new [x]")]}
    lines = shown(metrics)
    assert max(map(len, lines)) <= 100
    heads = " ".join(lines).split()
    assert heads.count("T→I") == heads.count("I→T") == 3
    line = next(line for line in lines if "UniAdapter" in line)
    assert line.split() == ["UniAdapter", *["45.00", "75.50", "85.25"] * 2, "1.98", "912", "kB", "312"]
    assert any("new [x]" in line for line in lines)
    assert not any("…" in line for line in lines)


def test_table_of_a_run_without_rows_or_with_accuracies() -> None:
    assert shown(sample() | {"rows": []})
    rows = [row("question_only", accuracy=51.5), row("uniadapter", accuracy=60.0)]
    for one in rows:
        del one["text_to_image"], one["image_to_text"]
    assert "accuracy" in "\n".join(shown(sample() | {"rows": rows}))
    assert "**60.00**" in report.markdown_table(sample() | {"rows": rows})


def test_markdown_table_has_the_best_in_bold_and_equal_cells() -> None:
    text = report.markdown_table(sample() | {"rows": [*sample()["rows"], row("uniadapter", 5.0, setting="a|b")]})
    lines = text.splitlines()
    assert lines[0].startswith("| method | T→I R@1 | T→I R@5 | T→I R@10 | I→T R@1 |")
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert lines[2].startswith("| zero-shot | 40.00 |")
    assert lines[3].startswith("| UniAdapter | **45.00** |")
    assert lines[4].startswith(r"| UniAdapter · a\|b | **45.00** |")  # a tie: both are best


def test_rows_of_several_test_sets_are_compared_apart() -> None:
    text = report.markdown_table(
        sample() | {"rows": [row("zero_shot"), row("uniadapter", 5), row("zero_shot", 30, test_set="b")]}
    )
    assert "| zero-shot | b | 70.00 |" in text
    assert "| UniAdapter | main | **45.00** |" in text


@pytest.mark.parametrize(
    ("size", "text"), [(0, NO_VALUE), (12, "12 B"), (912344, "912 kB"), (9.4e6, "9.40 MB"), (2e9, "2.00 GB")]
)
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("percent", "text"), [(0, "0"), (100.0, "100"), (99.9, "99.90"), (1.986, "1.99"), (0.0042, "0.004")]
)
def test_percentages(percent: float, text: str) -> None:
    assert percent_text(percent) == text


@pytest.mark.parametrize(("name", "steps"), [("curves.png", 1), ("curves.png", 200), ("curves.svg", 8)])
def test_curves_are_plotted(tmp_path: Path, name: str, steps: int) -> None:
    path = report.curves(history(steps), tmp_path / name)
    if name.endswith("png"):
        with Image.open(path) as image:
            colours = image.convert("RGB").getcolors(1 << 24)
        assert colours is not None
        drawn = {colour for _, colour in colours}
        assert {tuple(bytes.fromhex(PALETTE[n][1:])) for n in (0, 1)} <= drawn
    else:
        text = path.read_text()
        assert all(word in text for word in ("contrastive loss", "matching loss", "learning rate", "UniAdapter"))
        assert report.curves(history(steps), path).read_text() == text


def test_curves_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no step was logged"):
        report.curves({"uniadapter": []}, tmp_path / "curves.png")


def test_a_method_keeps_its_colour_and_no_two_share_one() -> None:
    alone = colour_index(["uniadapter"])
    many = colour_index(["other", "full_fine_tuning", "uniadapter", "another"])
    assert many["uniadapter"] == alone["uniadapter"]
    assert len(set(many.values())) == 4
    assert len(colour_index([str(n) for n in range(9)])) == 9
    css = (Path(report.__file__).parent / "page.css").read_text()
    assert all(f"--c{n}: {colour};" in css for n, colour in enumerate(PALETTE))


def test_smoothing_does_not_lag_and_keeps_the_ends() -> None:
    for count in (80, 3000):
        steps, values = _smoothed(range(count), [3.0 - 0.01 * n for n in range(count)])
        assert len(steps) <= 402
        assert (steps[0], steps[-1]) == (0, count - 1)
        assert values == pytest.approx([3.0 - 0.01 * n for n in steps])


def example(tmp_path: Path, query: str = "a red square") -> report.QueryExample:
    right, wrong = picture(tmp_path / "right one.png"), picture(tmp_path / 'wr"<ong.png', "blue")
    items = [report.RankedItem(wrong, 2.5, False), report.RankedItem(right, 1.25, True)]
    return report.QueryExample(query, [items[0]], items[::-1], 14, 1)


def test_page_holds_everything_and_fetches_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("base: <b>embedded</b>\n")
    path = report.write_report(tmp_path, sample(), [example(tmp_path)] * 12, history=history(), summary="A sentence.")
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"https?://|@import|url\((?!#|&quot;#)", text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert all(image["alt"] for image in page.images)
    assert len(page.images) == 12 * 4
    for words in ("A dozen queries", "A sentence.", "14 → <b>1</b>", "contrastive loss", "from 40.0 zero-shot, +5.0",
                  "<b>45.00</b>", "224,128", "1.98%", "1 min 15 s", "torch 2.13", "&lt;b&gt;embedded", "912 kB",
                  'alt="place 1, the right one: right one"', "right one at 14", "moved up in 12"):  # fmt: skip
        assert words in text, words
    assert text.count('<li class="right">') == 12
    assert text.count("<svg") == 4


def test_page_escapes_its_input(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'&"
    metrics = sample() | {"device": bad, "rows": [row(bad, setting=bad, test_set=bad), row("uniadapter")]}
    page_history = {bad: [{"step": 1, bad: 1.0}]}
    shown_page = report.write_report(
        tmp_path, metrics, [example(tmp_path, bad)], history=page_history, summary=bad, title=bad,
        labels=(bad, bad), examples_note=bad,
    ).read_text()  # fmt: skip
    page = Page(shown_page)
    assert "script" not in page.tags
    assert page.open == []
    assert "wr&quot;&lt;ong" in shown_page


def test_page_of_one_side_of_nothing_and_of_missing_pictures(tmp_path: Path) -> None:
    assert "zero-shot" in report.write_report(tmp_path, sample() | {"rows": sample()["rows"][:1]}).read_text()
    assert Page(report.write_report(tmp_path, sample() | {"rows": []}).read_text()).open == []
    one = report.QueryExample("q", after=[report.RankedItem(tmp_path / "gone.png", None, False)], rank_after=3)
    text = report.write_report(tmp_path, sample(), [one]).read_text()
    assert "no picture" in text
    assert "rank <b>3</b>" in text
    assert "before ·" not in text
    assert "moved up" not in text


def test_history_of_the_folder_is_plotted(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n')
    assert "<svg" in report.write_report(tmp_path, sample()).read_text()
    assert "<svg" not in report.write_report(tmp_path, sample(), history={}).read_text()


def decoded(source: str | None) -> Image.Image:
    assert source is not None
    return Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))


def test_thumbnails_of_deep_pictures_are_not_white(tmp_path: Path) -> None:
    Image.new("I;16", (30, 20), 0x4000).save(tmp_path / "deep.png")
    assert abs(decoded(Thumbnails().source(tmp_path / "deep.png")).convert("L").getpixel((9, 9)) - 0x40) < 4  # type: ignore[operator]


def test_thumbnails_are_small_and_transparent_is_white(tmp_path: Path) -> None:
    clear = tmp_path / "clear.png"
    Image.new("RGBA", (400, 200), (0, 0, 0, 0)).save(clear)
    image = decoded(Thumbnails().source(clear))
    assert image.size == (160, 80)
    assert min(image.convert("RGB").getpixel((5, 5))) > 250  # type: ignore[type-var, arg-type]
    assert decoded(Thumbnails().source(picture(tmp_path / "small.png", size=(20, 10)))).size == (20, 10)


def test_a_clip_is_a_strip_of_frames_with_their_weights_below(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (200, 200), (4 * n, 0, 255 - 4 * n)) for n in range(60)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=40, lossless=True)
    clip = buffer.getvalue()
    thumbnails = Thumbnails()
    assert thumbnails.moves(clip)
    assert decoded(thumbnails.source(clip)).size == (160, 160)
    for count, shown in ((3, 3), (0, 8), (1, 8), (40, 8)):
        image = decoded(thumbnails.strip(clip, count)).convert("RGB")
        assert image.size == (shown * 96 + (shown - 1) * 4, 96)
        reds = [image.getpixel((100 * n + 48, 48))[0] for n in range(shown)]  # type: ignore[index]
        assert reds == pytest.approx([4 * int((n + 0.5) * 60 / shown) for n in range(shown)], abs=6)
    item = report.RankedItem(clip, 0.5, True, frame_weights=[0.96, 1.08, 0.5])
    text = report.write_report(tmp_path, sample(), [report.QueryExample("q", after=[item], rank_after=1)]).read_text()
    bars = re.findall(r'<i class="(\w+)" style="height:(\d+)%">', text)
    assert bars == [("less", "20"), ("more", "40"), ("less", "50")]  # half the height is a weight a tenth away from 1
    assert "weights of the frames: 0.96, 1.08, 0.50" in text
    assert '<ol class="tiles strips short">' in text
    assert 'class="target strip"' in text
    assert "the clip that belongs to the query" in text


def test_a_video_file_and_a_folder_of_frames_are_strips(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(4):
        picture(tmp_path / f"frames/{number}.png", ("red", "green", "blue", "white")[number], (64, 64))
    assert Thumbnails().moves(tmp_path / "frames")
    assert decoded(Thumbnails().strip(tmp_path / "frames", 4)).width == 4 * 64 + 3 * 4
    assert not Thumbnails().moves(picture(tmp_path / "still.png"))
    assert Thumbnails().strip(tmp_path / "absent.mp4") is None


def test_tally_counts_up_same_and_down() -> None:
    ranks = [(3, 1), (1, 1), (1, 4), (2, 1)]
    examples = [report.QueryExample("q", rank_before=before, rank_after=after) for before, after in ranks]
    assert rank_changes(examples) == "The right picture moved up in 2, stayed in 1 and moved down in 1."
