"""What the pages tell a reader to do is done: every command and every piece of Python, in fewer steps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from literate import DOCS, blocks, carry_out
from reference import ParityCase

DONE = ["quickstart.md", *(f"{folder}/{page.name}" for folder in ("tutorials", "howto", "migrate")
                           for page in sorted((DOCS / folder).glob("*.md")))]  # fmt: skip
DONE = [page for page in DONE if any(one.kind in ("python", "bash") for one in blocks(DOCS / page))]
FEWER = [
    (r"max_steps: \d+", "max_steps: 4"),
    (r"max_steps=\d+", "max_steps=2"),
    (r"(--train.max_steps) \d+", r"\1 4"),
    (r"warmup_steps: \d+", "warmup_steps: 1"),
    (r"_heads 12", "_heads 4"),
]
THREADS = """
RERV/UniAdapter#1 salesforce/BLIP#16 salesforce/BLIP#18 salesforce/BLIP#43 WillDreamer/Aurora#14 ArrowLuo/CLIP4Clip#63
WillDreamer/Aurora#11 salesforce/BLIP#23 salesforce/BLIP#193 salesforce/LAVIS#147 salesforce/LAVIS#15
salesforce/LAVIS#231 salesforce/LAVIS#291 salesforce/LAVIS#587 huggingface/peft#376 huggingface/peft#682
dino-chiio/blip-vqa-finetune#8 huggingface/transformers#21231 huggingface/transformers#34019
huggingface/transformers#22625 huggingface/transformers#22732 salesforce/LAVIS#645 zdou0830/METER#12
jayleicn/ClipBERT#47 salesforce/LAVIS#314
"""


def test_the_pages_that_are_carried_out_are_all_there() -> None:
    tutorials = {"retrieval", "videos", "questions", "video-questions", "captions"}
    assert {f"tutorials/{name}.md" for name in tutorials} < set(DONE)
    assert {"quickstart.md", "howto/saving.md", "howto/transformers.md"} < set(DONE)
    assert {f"migrate/{name}.md" for name in ("peft", "lavis", "authors")} < set(DONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", DONE)
def test_a_page_does_what_it_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, colour in (("a.png", (220, 30, 30)), ("b.png", (40, 60, 220))):  # as in README
        Image.new("RGB", (64, 48), colour).save(file)
    if name == "migrate/authors.md":  # a checkpoint that their code wrote, of a tiny model with four heads
        torch.save({"model": ParityCase("retrieval_image").group("weights")}, "checkpoint_best.pth")
    assert carry_out(DOCS / name, monkeypatch, FEWER) > 0


@pytest.mark.parametrize(
    "page", [*(DOCS / "tutorials").glob("*.md"), DOCS / "quickstart.md"], ids=lambda page: page.name
)
def test_a_config_on_a_page_is_complete(page: Path) -> None:
    """What a page shows is what was run: its steps are in the file, and the table of figures has both rows."""
    shown = blocks(page)
    configs = [one.text for one in shown if one.kind == "yaml"]
    assert all(re.search(r"max_steps: \d+", one) for one in configs)
    if page.name != "index.md":
        table = next(one.text for one in shown if one.kind == "text")
        assert "zero-shot" in table
        assert "UniAdapter" in table


def test_every_thread_has_its_answer() -> None:
    page = (DOCS / "howto/index.md").read_text(encoding="utf-8")
    for thread in THREADS.split():
        repository, number = thread.split("#")
        row = next((line for line in page.splitlines() if f"github.com/{repository}/issues/{number})" in line), "")
        assert re.search(r"\| [^|]*\]\((?!http)[^)]+\)[^|]*\|$", row), thread


def test_runs_of_the_pages_leave_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for own data writes rows that lead to files."""
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```bash\npython own_data.py scenes mine 3 2\n```\n[own_data.py](own_data.py)\n")
    (tmp_path / "tutorials").mkdir()
    page = page.rename(tmp_path / "tutorials/page.md")
    (tmp_path / "tutorials/own_data.py").write_text((DOCS / "tutorials/own_data.py").read_text())
    assert carry_out(page, monkeypatch) == 1
    rows = [json.loads(line) for line in (tmp_path / "mine/train.jsonl").read_text().splitlines()]
    assert len({row["image"] for row in rows}) == 3
    assert all((tmp_path / "mine" / row["image"]).is_file() for row in rows)
