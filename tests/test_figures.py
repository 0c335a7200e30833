"""The tables and the verdicts in docs/ are those of the committed results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
result_tables = pytest.importorskip("result_tables", reason="benchmarks/ is not here")

import tables  # noqa: E402 - behind the skip

RESULTS_PAGE, COSTS_PAGE = (ROOT / "docs" / name for name in ("results.md", "costs.md"))
MEASURED = result_tables.measured()


@pytest.mark.parametrize("name", MEASURED)
def test_the_tables_of_results_are_of_the_committed_rows(name: str) -> None:
    assert "\n".join(result_tables.table(name)) in RESULTS_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [tables.reranked, tables.trained])
def test_the_tables_of_costs_are_of_the_committed_rows(table: Any) -> None:
    assert "\n".join(table()) in COSTS_PAGE.read_text(encoding="utf-8")


def test_the_table_of_the_readme_is_of_the_committed_results() -> None:
    assert "\n".join(result_tables.readme_table()) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MEASURED)
def test_the_verdicts_of_results_are_of_the_committed_results(name: str) -> None:
    assert "\n".join(result_tables.verdict_table(name)) in RESULTS_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", result_tables.measured(result_tables.CURVES))
def test_the_curves_of_results_are_of_the_committed_results(name: str) -> None:
    assert "\n".join(result_tables.curve_table(name)) in RESULTS_PAGE.read_text(encoding="utf-8")
