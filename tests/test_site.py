"""The site is built strictly, holds what it promises, and needs nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import uniadapter as ua

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FETCHED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//|<link[^>]+(?:stylesheet|preconnect)[^>]+href=\"?https?://"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert re.search(rf"[ :-] {re.escape(page.relative_to(DOCS).as_posix())}$", listed, re.MULTILINE), page
    for notebook in DOCS.rglob("*.ipynb"):
        assert notebook.relative_to(DOCS).with_suffix(".md").as_posix() in listed


def test_every_public_name_has_its_place_in_the_reference(site: Path) -> None:
    said = "".join(page.read_text(encoding="utf-8") for page in (site / "api").rglob("*.html"))
    for name in set(ua.__all__) - {"__version__"}:
        assert re.search(rf'id="uniadapter\.(config\.)?{name}"', said), name


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page


def test_links_out_of_the_folder_lead_to_pages_of_the_site(site: Path) -> None:
    page = (site / "architecture/index.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="(\.\./repository/[^"]+)"', page))
    assert len(links) > 30
    for link in links:
        target = site / "architecture" / link
        assert (target / "index.html").is_file() or target.is_file(), link
    assert '<svg class="rooms"' in page
    assert (
        ">read_records</span>" in (site / "repository/src/uniadapter/data/layouts/registry.py/index.html").read_text()
    )
