"""Notebooks are pages of the site: their cells as Markdown, with the outputs that are stored in them.

The tests run every notebook (`tests/test_notebooks.py`), so that building the site need not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook; the notebook itself stays as a file to download."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        address = PurePosixPath(file.src_uri)
        files.append(File.generated(config, str(address.with_suffix(".md")), content=page(file)))
    return files


def page(file: File) -> str:
    """A notebook as Markdown."""
    notebook = nbformat.reads(file.content_string, as_version=4)
    parts = [part for cell in notebook.cells for part in cell_parts(cell)]
    name = PurePosixPath(file.src_uri).name
    return "\n\n".join([*parts, f'<a href="../{name}" download>This page as a notebook</a>']) + "\n"


def cell_parts(cell: nbformat.NotebookNode) -> Iterator[str]:
    """A cell's text, or its code and what that printed or drew."""
    if cell.cell_type != "code":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![](data:image/png;base64,{''.join(data['image/png'].split())})"
        elif text := output.get("text") or data.get("text/plain"):
            yield f"```text\n{text.rstrip()}\n```"
