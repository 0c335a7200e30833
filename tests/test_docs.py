"""Links in the documentation lead somewhere, and the names beside them are in the files they lead to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from uniadapter.model.families import support_matrix

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / ".github").glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[(?P<said>[^\]]*)\]\((?P<to>[^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        to = link["to"]
        if re.match(r"[a-z]+:|#", to):
            continue
        file = page.parent / to.partition("#")[0]
        assert file.exists(), f"{page.name}: {to}"
        name = re.fullmatch(r"`(\w+)`", link["said"])
        if name and file.suffix == ".py":
            assert re.search(rf"(def|class) {name[1]}\b", file.read_text(encoding="utf-8")), f"{page.name}: {name[1]}"


def test_the_figure_of_the_rooms_is_that_of_the_code() -> None:
    command = [sys.executable, str(ROOT / "docs" / "rooms.py"), "--figure"]
    figure = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert figure in page, "python docs/rooms.py --figure > the figure there"


def test_the_front_page_has_the_table_of_families() -> None:
    table = [line for line in support_matrix().splitlines() if line.startswith("|")]
    assert "\n".join(table) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 125
