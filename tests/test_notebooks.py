"""The notebooks run from their first cell to their last, and the site shows what they printed."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert {one.stem for one in NOTEBOOKS} >= {"adapt", "several"}


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent / "src"))
    notebook = nbformat.read(file, as_version=4)
    stored = [cell.get("outputs") for cell in notebook.cells]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell, before in zip(notebook.cells, stored, strict=True):
        if cell.cell_type == "code":
            now = [one for one in cell.outputs if one.get("name") != "stderr"]  # warnings are not part of the page
            assert _kinds(now) == _kinds(before or []), cell.source
            assert not any(one.get("name") == "stderr" for one in before or []), cell.source


def _kinds(outputs: list[nbformat.NotebookNode]) -> list[str]:
    """What a cell gives; what it prints may come in several parts, by how fast the machine is."""
    return [kind for kind, _ in groupby(one.output_type for one in outputs)]
