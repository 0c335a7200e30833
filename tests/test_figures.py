"""The tables and the verdicts in docs/ are those of the committed results."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
result_tables = pytest.importorskip("result_tables", reason="benchmarks/ is not here")

import tables  # noqa: E402 - behind the skip

RESULTS_PAGE, COSTS_PAGE = (ROOT / "docs" / name for name in ("results.md", "costs.md"))
WITH_INTERVALS = [name for name in result_tables.TABLES if result_tables.has_intervals(name)]


@pytest.mark.parametrize("name", result_tables.TABLES)
def test_the_tables_of_results_are_of_the_committed_rows(name: str) -> None:
    assert "\n".join(result_tables.table(name)) in RESULTS_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [tables.reranked, tables.trained])
def test_the_tables_of_costs_are_of_the_committed_rows(table: Any) -> None:
    assert "\n".join(table()) in COSTS_PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(
    not WITH_INTERVALS or not all(map(result_tables.has_intervals, result_tables.MAIN)),
    reason="results without intervals",
)
def test_the_table_of_the_readme_is_of_the_committed_results() -> None:
    assert "\n".join(result_tables.readme_table()) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", WITH_INTERVALS)
def test_the_verdicts_of_results_are_of_the_committed_results(name: str) -> None:
    assert "\n".join(result_tables.verdict_table(name)) in RESULTS_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in result_tables.TABLES if name not in WITH_INTERVALS])
def test_the_verdicts_in_the_text_are_the_committed_ones(name: str) -> None:
    """Each verdict on the test split, against full fine-tuning and the question alone, with its interval."""
    page = re.sub(r"\s+", " ", RESULTS_PAGE.read_text(encoding="utf-8"))
    verdicts = json.loads((result_tables.RESULTS / f"{name}.json").read_text())["verdicts"]["test"]
    for other in ("full_fine_tuning", "question_only"):
        if other in verdicts:
            found = verdicts[other]
            low, high = (f"{end:.1f}" for end in found["interval_95"])
            difference = f"{found['difference']:+.1f}".replace("+", r"\+")
            assert found["verdict"] in page
            assert re.search(rf"{difference}[^()]{{0,25}}{low} to {high}", page)
