"""The run's page: content without repetition, alternative texts, and usage examples."""

from __future__ import annotations

import copy
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from test_report import Page, history, picture, row, sample
from uniadapter import report
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.answering import Prediction
from uniadapter.report.examples import CORRECTED, STAYED_RIGHT, WRONG, _chosen, select_examples
from uniadapter.report.plots import panel_svg, quantities
from uniadapter.report.text_cards import TextExample


def written(folder: Path, metrics: dict[str, Any], *examples: Any, **more: Any) -> str:
    return report.write_report(folder, metrics, examples, **more).read_text()


def test_scores_that_nothing_reranked_are_shown_once(tmp_path: Path) -> None:
    metrics = copy.deepcopy(sample())
    assert "Contrastive similarity alone" in written(tmp_path, metrics)
    for one in metrics["rows"]:
        for direction in ("text_to_image", "image_to_text"):
            scores = one[direction]
            scores.update({f"{key}_itc": value for key, value in scores.items() if not key.endswith("_itc")})
    text = written(tmp_path, metrics)
    assert text.count("<table>") == 2  # the main one, and one of ranks
    assert "Contrastive similarity; nothing was reranked" in text
    assert "Reranked by the matching head" not in text
    assert "<summary>Ranks</summary>" in text


def test_a_part_that_equals_the_loss_is_plotted_once() -> None:
    alone = {"uniadapter": [{"step": s, "loss": 2.0 / s, "contrastive": 2.0 / s, "lr": 1e-3} for s in range(1, 5)]}
    assert quantities(alone) == ["loss", "lr"]
    assert quantities(history()) == ["loss", "contrastive", "matching", "lr"]
    bare = {"uniadapter": [{"step": 1, "contrastive": 2.0}]}
    assert quantities(bare) == ["contrastive"]


def ticks(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_an_axis_of_one_step_has_one_tick() -> None:
    one = {"uniadapter": [{"step": 1, "loss": 8.4, "lr": 0.0}]}
    assert ticks(panel_svg(one, "loss")).count("1") == 1
    assert ticks(panel_svg(one, "lr")).count("1") == 1
    two = {"uniadapter": [{"step": s, "loss": 8.4 - s} for s in (1, 2)]}
    shown = ticks(panel_svg(two, "loss"))
    assert (shown.count("1"), shown.count("2")) == (1, 1)


def test_a_rate_that_ends_at_zero_stays_on_the_plot() -> None:
    from matplotlib.figure import Figure

    from uniadapter.report.plots import _panel

    rates = {
        method: [{"step": s, "loss": 1.0, "lr": peak * (1 - s / 5)} for s in range(6)]
        for method, peak in (("uniadapter", 1e-3), ("full_fine_tuning", 1e-5))
    }
    axes = Figure().subplots()
    _panel(axes, rates, "lr", title=False)
    low, high = axes.get_ylim()
    assert low == 0 < 1e-3 < high
    for line in axes.lines:
        places = axes.transData.transform([(x, y) for x, y in zip(*line.get_data(), strict=True)])  # type: ignore[call-overload]
        assert axes.bbox.y0 - 1 <= places[:, 1].min() <= axes.bbox.y0 + 1
    assert "0" in ticks(panel_svg(rates, "lr"))


def test_the_title_names_what_was_trained_without_a_test_split(tmp_path: Path) -> None:
    metrics = {"task": "caption", "seed": 0, "rows": []}
    assert "<h1>Caption: UniAdapter</h1>" in written(
        tmp_path, metrics, history={"uniadapter": [{"step": 1, "loss": 2}]}
    )
    full = {"full_fine_tuning": [{"step": 1, "loss": 2}]}
    assert "<h1>Caption: full fine-tuning</h1>" in written(tmp_path, metrics, history=full)
    metrics["rows"] = [row("zero_shot")]
    assert "<h1>Caption: zero-shot</h1>" in written(tmp_path, metrics, history={})


def test_pictures_have_alternative_texts(tmp_path: Path) -> None:
    content = picture(tmp_path / "x.png").read_bytes()
    items = [report.RankedItem(content, correct=True, caption="a red square")]
    cards = [
        report.QueryExample("something red", items, items, 1, 1),
        report.QueryExample("red?", items[:0], [report.RankedItem(tmp_path / "x.png")]),
    ]
    images = Page(written(tmp_path, sample(), *cards)).images
    assert [image["alt"] for image in images] == [
        "what was asked for: something red", *["place 1, the right one: a red square"] * 2, "place 1: x",
    ]  # fmt: skip
    said = [TextExample(content, "what colour?", ["red"], [], [("red", None)])]
    assert Page(written(tmp_path, sample(), *said)).images[0]["alt"] == "picture of the question: what colour?"
    said = [TextExample(content, "", ["a red thing", "red"], [], [("red", None)])]
    alt = Page(written(tmp_path, sample(), *said)).images[0]["alt"]
    assert alt == "picture with the caption: a red thing · red"


def test_every_cell_is_labelled_for_narrow_screens(tmp_path: Path) -> None:
    text = written(tmp_path, sample())
    cells = re.findall(r"<td[ >][^>]*>", text.replace("<td></td>", ""))
    assert cells
    assert all('data-label="' in cell for cell in cells)
    assert 'data-label="text → image R@1"' in text
    assert "content: attr(data-label)" in text


@pytest.mark.parametrize("task", ["retrieval", "vqa", "caption"])
def test_the_adapter_is_used_by_its_own_cards_lines(tmp_path: Path, task: str) -> None:
    folder = tmp_path / "my run"
    (folder / "adapter").mkdir(parents=True)
    assert "Use this" not in written(tmp_path, sample())
    card = '# Card\n```python\nimport uniadapter as ua\nua.load_adapter(model, "path/to/this/folder")\n```\nend\n'
    (folder / "adapter/README.md").write_text(card)
    text = written(folder, {**sample(), "task": task})
    shown = text[text.index("Use this adapter") :]
    assert f"ua.load_adapter(model, &#x27;{folder}/adapter&#x27;)" in shown
    assert f"goes with the base embedded; its task is {task}." in shown
    verb = {"retrieval": "evaluate", "vqa": "ask", "caption": "caption"}[task]
    assert f"uniadapter {verb} " in shown
    assert f"--adapter &#x27;{folder}/adapter&#x27;" in shown


def test_a_fully_fine_tuned_model_is_used_as_a_base(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = written(tmp_path, {**sample(), "task": "vqa"})
    assert "Use this model" in text
    assert f"ua.load_model(&#x27;{tmp_path}/model&#x27;, &#x27;vqa&#x27;)" in text
    assert f"uniadapter ask picture.jpg &#x27;what is in the picture?&#x27; --base {tmp_path}/model" in text


def test_full_fine_tuning_is_not_compared_with_a_base_without_embeddings(tmp_path: Path) -> None:
    full = row("full_fine_tuning", trainable_percent_without_embeddings=114.8879, adapter_percent=0.0)
    assert "114.9" not in written(tmp_path, sample() | {"rows": [full]})
    assert "2.20% of the base without its token embeddings" in written(tmp_path, sample())


@pytest.mark.parametrize(
    ("ranks", "firsts"),
    [
        ([(2, 3), (5, 1), (1, 1), (4, 2), (1, 7), (1, 1)], {2: STAYED_RIGHT, 1: CORRECTED, 0: WRONG}),
        ([(2, 2), (3, 3)], {0: WRONG}),
        ([(1, 1)] * 3, {0: STAYED_RIGHT}),
        ([], {}),
    ],
)
def test_first_cards_are_a_success_a_correction_and_a_failure(
    ranks: list[tuple[int, int]], firsts: dict[int, str]
) -> None:
    rows = _chosen(len(ranks), lambda row: (ranks[row][0] == 1, ranks[row][1] == 1))
    assert {row: why for row, why in rows.items() if why} == firsts
    assert list(rows)[: len(firsts)] == list(firsts)
    assert sorted(rows) == list(range(len(ranks)))


def test_a_dozen_examples_are_evenly_spaced() -> None:
    rows = _chosen(1000, lambda row: (False, row == 999))
    assert len(rows) == 12
    assert rows[999] == CORRECTED
    assert max(row for row in rows if row != 999) > 700
    assert list(_chosen(1000, None)) == list(range(0, 996, 83))


def test_the_page_says_how_the_cards_were_chosen(tmp_path: Path) -> None:
    cards = [report.QueryExample(f"q{n}", reason=why) for n, why in enumerate((STAYED_RIGHT, CORRECTED, WRONG, ""))]
    text = written(tmp_path, sample(), *cards)
    assert (
        "The first cards show the first right before and after, the first corrected by training and the first wrong "
        "after training of the test set; the others are evenly spaced, regardless of their result." in text
    )
    assert text.index(CORRECTED) < text.index("q1")
    assert '<p class="chosen">' not in written(tmp_path, sample(), *cards[3:])


@dataclass
class Found:
    detail: Any


def test_examples_of_questions_and_captions(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{n}.png") for n in range(4)]
    base = {"visuals": list(files), "visual_ids": list("abcd"), "origins": list("abcd"),
            "texts": ["q"] * 4, "text_visual": list(range(4))}  # fmt: skip
    split = QuestionSplit("test", **base, answers=[{"red": 1.0}] * 4, question_ids=list(range(4)))
    before = Found([Prediction(text) for text in ("blue", "blue", "red", "blue")])
    after = Found([Prediction(text) for text in ("blue", "Red", "red", "blue")])
    shown = select_examples(split, before, after)  # type: ignore[arg-type]
    assert [(one.image, one.reason) for one in shown] == [  # type: ignore[union-attr]
        (files[2], STAYED_RIGHT), (files[1], CORRECTED), (files[0], WRONG), (files[3], ""),
    ]  # fmt: skip
    split.answers = [{}] * 4  # nobody says what is right
    assert [one.reason for one in select_examples(split, before, after)] == [""] * 4  # type: ignore[arg-type]
    captions = RetrievalSplit("test", **base)
    said = Found(["a"] * 4)
    assert [one.reason for one in select_examples(captions, said, said)] == [""] * 4  # type: ignore[arg-type]


def test_examples_of_queries_have_captions(tmp_path: Path) -> None:
    from uniadapter.evaluation.retrieval import RetrievalResult

    files = [picture(tmp_path / f"{n}.png") for n in range(3)]
    split = RetrievalSplit("test", files, list("abc"), list("abc"), ["one", "two", "three"], [0, 1, 2])
    fields = {name: None for name in RetrievalResult.__dataclass_fields__}
    order = torch.tensor([[0, 1, 2], [1, 0, 2], [1, 2, 0]])
    weights = torch.zeros(3, 3, 1)
    results = [
        Found(
            RetrievalResult(
                **{**fields, "text_order": order, "text_ranks": torch.tensor(ranks), "frame_weights": weights}
            )
        )  # type: ignore[arg-type]
        for ranks in ((1, 2, 2), (1, 1, 2))
    ]
    shown = select_examples(split, *results)  # type: ignore[arg-type]
    assert [(one.query, one.reason) for one in shown] == [("one", STAYED_RIGHT), ("two", CORRECTED), ("three", WRONG)]  # type: ignore[union-attr]
    assert [item.caption for item in shown[0].after] == ["one", "two", "three"]  # type: ignore[union-attr]


def test_visuals_left_out_are_noted_above_the_scores(tmp_path: Path) -> None:
    over = "7 of 8 pictures and 14 of 16 captions"
    metrics = sample() | {"rows": [row("uniadapter", skipped=1, over=over, queries=14, gallery=7)]}
    lost = {"count": 1, "over": over, "faults": {"broken picture": 1}, "names": [f"<{n}>.png" for n in range(10)]}
    metrics["skipped"] = {"test": lost, "novel": "of another form"}
    text = written(tmp_path, metrics)
    assert f"test: the scores are over {over}. Left out: 1 broken picture: &lt;0&gt;.png," in text
    assert "and 2 more." in text
    assert "of another form" not in text
    console = Console(width=100, file=io.StringIO())
    console.print(report.table(metrics))
    assert f"over {over}" in " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Left out" not in written(tmp_path, sample())


def test_the_pages_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import html

    from squares import save_base
    from uniadapter.checkpoints.adapter_folder import save_adapter
    from uniadapter.checkpoints.adapters import add_adapter
    from uniadapter.checkpoints.loading import load_model
    from uniadapter.config import AdapterConfig

    base = save_base(tmp_path / "base")
    model = load_model(str(base))
    add_adapter(model, AdapterConfig(bottleneck=4, key_value=2))
    save_adapter(model, tmp_path / "it's a run/adapter")
    text = written(tmp_path / "it's a run", sample() | {"base": str(base)})
    lines = html.unescape(re.findall(r"<pre>(.*?)</pre>", text[text.index("Use this adapter") :], re.DOTALL)[0])
    picture(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert "it's a run/adapter" in lines
    assert "tensor(" in capsys.readouterr().out
