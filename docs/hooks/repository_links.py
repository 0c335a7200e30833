"""Links of pages that leave docs/ lead to pages of the site: what they name is taken along from the repository.

In the repository `[…](../src/uniadapter/errors.py)` is a file beside the page. On the site it is a page below
`repository/`, with the file's text; a folder is a list of what is in it, and what is no text is copied as it is.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
SHOWN = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".txt": "text", "": "text"}
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?P<to>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))")
HEAD = "---\nsearch: {{exclude: true}}\ntitle: {name}\n---\n\n"  # code would drown the pages in the search

_origins: dict[str, str] = {}  # address of a page that was taken along -> its path in the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside docs/, and what that links to."""
    _origins.clear()
    waiting = [(DOCS + file.src_uri, file.content_string) for file in files.documentation_pages()]
    while waiting:
        origin, text = waiting.pop()
        for target in sorted(set(_targets(text, origin))):
            address = _address(target)
            if address == target.removeprefix(DOCS) or files.get_file_from_path(address):
                continue
            content = _content(target)
            if content is None:
                files.append(File.generated(config, address, abs_src_path=str(ROOT / target)))
                continue
            _origins[address] = target
            files.append(File.generated(config, address, content=HEAD.format(name=target) + content))
            waiting.append((target, content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of one page to the addresses on the site."""
    here = page.file.src_uri
    origin = _origins.get(here, DOCS + here)

    def moved(link: re.Match[str]) -> str:
        target = _resolve(link["to"], origin)
        if target is None:
            return link[0]
        address = os.path.relpath(_address(target), PurePosixPath(here).parent)
        return PurePosixPath(address).as_posix() + (link["anchor"] or "")

    return _outside_fences(markdown, lambda text: LINK.sub(moved, text))


def _targets(text: str, origin: str) -> Iterator[str]:
    """Paths in the repository that a page links to."""
    for link in LINK.finditer(FENCED.sub("", text)):
        target = _resolve(link["to"], origin)
        if target is not None:
            yield target


def _resolve(to: str, origin: str) -> str | None:
    """The path in the repository that a link of the file `origin` names; None for an address elsewhere."""
    if re.match(r"[a-z]+:|/", to):
        return None
    path = os.path.normpath(PurePosixPath(origin).parent / to)
    return Path(path).as_posix() if (ROOT / path).exists() and not path.startswith("..") else None


def _address(target: str) -> str:
    """Where a path of the repository is on the site, as a source address of MkDocs."""
    if target.startswith(DOCS) and not target.endswith("rooms.py") and (ROOT / target).is_file():
        return str(PurePosixPath(target.removeprefix(DOCS)).with_suffix(".md") if target.endswith(".ipynb")
                   else target.removeprefix(DOCS))  # fmt: skip
    if (ROOT / target).is_dir() or Path(target).suffix in SHOWN:
        return f"repository/{target}.md"
    return f"repository/{target}"


def _content(target: str) -> str | None:
    """What the page of a path of the repository says; None for a file that is copied as it is."""
    path = ROOT / target
    if path.is_dir():
        rows = [f"| `{one.name}{'/' if one.is_dir() else ''}` | {_says(one)} |" for one in sorted(path.iterdir())
                if not one.name.startswith((".", "__pycache__"))]  # fmt: skip
        return f"# {target}/\n\n| | |\n|:--|:--|\n" + "\n".join(rows) + "\n"
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    if path.suffix in SHOWN:
        return f"# {target}\n\n````{SHOWN[path.suffix]}\n{path.read_text(encoding='utf-8')}````\n"
    return None


def _says(path: Path) -> str:
    """The first line of a module's docstring, of a package's, or of a config's comment."""
    file = path / "__init__.py" if path.is_dir() else path
    if file.suffix == ".yaml":
        return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").replace("|", "\\|")
    if file.suffix != ".py" or not file.is_file():
        return ""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0].replace("|", "\\|")


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Change a text, but not its fenced code."""
    parts, last = [], 0
    for fenced in FENCED.finditer(text):
        parts += [change(text[last : fenced.start()]), fenced[0]]
        last = fenced.end()
    return "".join([*parts, change(text[last:])])
