"""Comparisons: each run once, rates from validation alone, grids widened for all methods alike, records shared."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_comparison import (
    ARMS,
    EQUAL_TIME,
    EVERYTHING,
    FULL,
    GRIDS,
    result_tables,
    tiny_arms,
    tiny_configs,
    tiny_task,
)
from uniadapter.compare import arms, comparison, verdicts
from uniadapter.compare.trials import Trials
from uniadapter.config import ConfigError
from uniadapter.config import comparison as settings
from uniadapter.errors import UsageError
from uniadapter.evaluation.compare import paired_bootstrap
from uniadapter.runs.results import measure
from uniadapter.runs.steps import load_split, train_split
from uniadapter.runs.steps import test_splits as load_tests
from uniadapter.tasks.preparing import prepare


def records(folder: Path) -> dict[str, int]:
    """Record to its time of writing."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cache").glob("*.json")}


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A task proven from end to end."""
    folder = tmp_path_factory.mktemp("proven")
    task = tiny_task(folder, ARMS, **GRIDS)
    comparison.find_rates(task)
    comparison.measure_seeds(task)
    return folder, task


def test_the_arms_are_those_that_the_file_names(tmp_path: Path) -> None:
    made = tiny_arms(tiny_configs(tmp_path), "video")
    assert list(made) == [
        EVERYTHING, "without_fused", "fused_alone", "without_frame_aware", "without_temporal", "plain_adapters",
        "self_attention", "lora", "dora", FULL, EQUAL_TIME,
    ]  # fmt: skip
    trained = {name: prepare(arm.config).counts.trainable for name, arm in made.items()}
    for name in ("without_fused", "fused_alone"):
        assert trained[name] == pytest.approx(trained[EVERYTHING], rel=0.05)  # a unit of such a small model
    assert trained["without_frame_aware"] == trained[EVERYTHING] > trained["without_temporal"]
    assert {len(arm.grid) for arm in made.values() if not arm.rates_of} == {4}
    assert tiny_arms(tiny_configs(tmp_path), "vqa")["question_only"].method == "question_only"


def test_rates_are_a_factor_of_three_apart_and_widened_on_the_side_of_the_best() -> None:
    for grid in (settings.ADAPTER_RATES, settings.OWN_WEIGHTS_RATES):
        assert list(grid[1:]) == [arms.next_rate(rate, True) for rate in grid[:-1]]
        assert list(grid[:-1]) == [arms.next_rate(rate, False) for rate in grid[1:]]
    grid = (1e-3, 3e-3, 1e-2)
    assert arms.wider(grid, 1e-3) == (3e-4, 1e-3, 3e-3, 1e-2)
    assert arms.wider(grid, 1e-2) == (1e-3, 3e-3, 1e-2, 3e-2)
    with pytest.raises(ConfigError, match="1 or 3 times"):
        arms.next_rate(4e-4, True)


def test_every_row_and_verdict_is_there(proven: tuple[Path, Any]) -> None:
    folder, task = proven
    rates = json.loads((folder / "results/rates/tiny.json").read_text())
    assert rates["split"] == "val"
    lengths = {name: len(grid) for name, grid in rates["grids"].items()}
    assert len(set(lengths.values())) == 1  # widened for all alike
    assert len(rates["rows"]) == sum(lengths.values())
    assert not any(best["edge"] for best in rates["chosen"].values())
    for row in rates["rows"]:
        assert row["steps"] == 8
        assert row["main"] == row["text_to_image"]["r@1"]
    for arm in (EVERYTHING, "without_fused", FULL):
        mine = [row for row in rates["rows"] if row["arm"] == arm]
        assert rates["chosen"][arm]["lr"] == comparison.best_rate(mine)
    assert rates["chosen"][EQUAL_TIME]["lr"] == rates["chosen"][FULL]["lr"]

    results = json.loads((folder / "results/compare/tiny.json").read_text())
    assert results["task"] == "retrieval"
    named = [(row["method"], row.get("setting"), row["seed"], row.get("test_set")) for row in results["rows"]]
    assert len(set(named)) == len(named) == 2 + 2 * 2 * 4  # zero-shot, and four arms of two seeds, on two test sets
    assert (EVERYTHING, "without the fused part", 1, "novel") in named
    assert (FULL, "equal time", 0, None) in named
    for row in results["rows"]:
        assert row["method"] == "zero_shot" or row["trainable_parameters"] > 0
        assert row["method"] == "zero_shot" or row["checkpoint_bytes"] > 1000
    equal = next(row for row in results["rows"] if row.get("setting") == "equal time")
    assert equal["steps"] == rates["chosen"][EQUAL_TIME]["steps"]
    for name in ("test", "novel"):
        for arm, found in results["means"][name].items():
            rows = [row for row in results["rows"] if row.get("test_set", "test") == name]
            mine = task.arms.get(arm)
            want = ("zero_shot", "") if mine is None else (mine.method, mine.setting)
            mine = [r["text_to_image"]["r@1"] for r in rows if (r["method"], r.get("setting", "")) == want]
            assert found["mean"] == pytest.approx(sum(mine) / len(mine), abs=1e-3)
            assert found["interval_95"][0] <= found["mean"] <= found["interval_95"][1]
        assert set(results["verdicts"][name]) == {"without_fused", FULL, EQUAL_TIME, "zero_shot"}


def test_the_tables_are_made_of_the_results(proven: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, task = proven
    for name, arm in task.arms.items():
        label = result_tables.ARMS[name]
        assert (label.method, label.setting) == (arm.method, arm.setting)
    for name in result_tables.MAIN:
        (folder / f"results/compare/{name}.json").write_bytes((folder / "results/compare/tiny.json").read_bytes())
    monkeypatch.setattr(result_tables, "RESULTS", folder / "results" / "compare")
    results = result_tables.content("scenes")
    assert set(result_tables.measured()) == set(result_tables.MAIN)
    lines = result_tables.table("scenes")
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| zero-shot", "| UniAdapter without the fused part", "| UniAdapter", "| full fine-tuning",
        "| full fine-tuning, equal time",
    ]  # fmt: skip
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    found = results["verdicts"]["novel"]["equal_time"]
    low, high = found["interval_95"]
    (line,) = (line for line in result_tables.verdict_table("scenes") if line.startswith("| full fine-tuning, equal"))
    assert line.endswith(f"| {found['difference']:+.1f} | {low:+.1f} to {high:+.1f} | *{found['verdict']}* |")
    mean = results["means"]["test"]["without_fused"]
    low, high = mean["interval_95"]
    readme = result_tables.readme_table()
    assert len(readme) == 2 + 5
    assert readme[2].startswith("| pictures by captions, R@1 | ")
    assert f" | {mean['mean']:.1f} ({low:.1f} to {high:.1f}) | " in readme[2]


@pytest.mark.parametrize("name", ["scenes", "video", "vqa"])
def test_every_arm_has_a_line_in_the_tables(tmp_path: Path, name: str) -> None:
    for arm, made in tiny_arms(tiny_configs(tmp_path), name).items():
        assert (result_tables.ARMS[arm].method, result_tables.ARMS[arm].setting) == (made.method, made.setting)


def test_no_finished_run_is_repeated(proven: tuple[Path, Any]) -> None:
    folder, _ = proven
    before = records(folder)
    again = tiny_task(folder, ARMS, **GRIDS)
    comparison.find_rates(again)
    comparison.measure_seeds(again)
    assert records(folder) == before
    assert not list((folder / "cache").glob("weights-*.pt"))  # needed no more


def test_a_record_of_another_comparison_has_the_name_of_this_one(proven: tuple[Path, Any], tmp_path: Path) -> None:
    folder, task = proven
    for file in (folder / "cache").glob("*.json"):
        content = json.loads(file.read_text())
        rows = [{**row, "setting": "as it is called there"} for row in content.get("rows", [])]
        (tmp_path / file.name).write_text(json.dumps({**content, "rows": rows}))
    again = replace(task, trials=Trials(tmp_path), results_file=tmp_path / "results.json")
    found = {(row["arm"], row.get("setting", "")) for row in comparison.measure_seeds(again)["rows"]}
    assert found == {("zero_shot", ""), *((name, arm.setting) for name, arm in task.arms.items())}


def test_the_first_seed_is_what_the_rates_have_trained(proven: tuple[Path, Any]) -> None:
    """Its figures on the test split are those of a run of its own."""
    folder, task = proven
    config = comparison.chosen_configs(task)["without_fused"]
    prepared = prepare(config)
    train_split(prepared, load_split(config, "train"), config)
    tests = load_tests(config)
    expected = measure(prepared, config, tests, EVERYTHING, time.perf_counter(), setting="without the fused part")
    rows = json.loads((folder / "results/compare/tiny.json").read_text())["rows"]
    found = [row for row in rows if row.get("setting") == "without the fused part" and row["seed"] == 0]
    for mine, wanted in zip(found, expected.rows, strict=True):
        for key in ("text_to_image", "image_to_text", "trainable_parameters", "trainable_percent"):
            assert mine[key] == wanted[key]


def test_rates_never_read_the_test_split(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, (EVERYTHING,), uniadapter=(1e-3,))
    data = replace(task.arms[EVERYTHING].config.data, test=str(tmp_path / "none.json"), extra_tests={})
    arm = task.arms[EVERYTHING]
    task.arms[EVERYTHING] = replace(arm, config=replace(arm.config, data=data))
    comparison.find_rates(task, run=False)
    (trial,) = comparison.rate_trials(task, {EVERYTHING: (1e-3,)})[EVERYTHING]
    assert task.trials.complete([trial])[0]["arm"] == EVERYTHING


def test_the_best_rate_is_that_of_the_best_figure_and_of_equal_ones_the_middle() -> None:
    rows = [{"lr": rate, "main": main} for rate, main in ((3e-3, 50.0), (1e-3, 41.0), (1e-2, 30.0))]
    assert comparison.best_rate(rows) == 3e-3
    assert comparison.best_rate([{**row, "main": 50.0} for row in rows]) == 3e-3
    assert comparison.best_rate([*({**row, "main": 50.0} for row in rows), {"lr": 1e-4, "main": 50.0}]) == 1e-3


def test_a_rate_at_the_edge_widens_every_grid_and_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates so small that nothing changes are all equal: two of them have an edge only, three a middle."""
    small, more = (1e-12, 3e-12), (1e-12, 3e-12, 1e-11)
    task = tiny_task(tmp_path, (EVERYTHING, FULL), uniadapter=small, full_fine_tuning=more)
    monkeypatch.setattr(comparison, "MOST_RATES", 3)
    with pytest.raises(UsageError, match=r": uniadapter still at the edge of 3 rates"):
        comparison.find_rates(task)
    with pytest.raises(UsageError, match="no rate within a grid was chosen for uniadapter"):
        comparison.measure_seeds(task)
    monkeypatch.setattr(comparison, "MOST_RATES", 4)
    comparison.find_rates(task)
    rates = json.loads(task.rates_file.read_text())
    assert rates["grids"] == {EVERYTHING: [3e-13, *small], FULL: [3e-13, *more]}
    assert rates["widened_for"] == [EVERYTHING]
    assert len(rates["rows"]) == 7


def test_the_test_split_is_not_read_with_rates_of_another_recipe(tmp_path: Path, proven: tuple[Path, Any]) -> None:
    with pytest.raises(UsageError, match=r"tiny\.json is not there: run the comparison"):
        comparison.measure_seeds(tiny_task(tmp_path))
    folder, _ = proven
    other = tiny_task(folder, ARMS, **GRIDS)
    arm = other.arms[FULL]
    other.arms[FULL] = replace(arm, config=replace(arm.config, train=replace(arm.config.train, weight_decay=0.3)))
    before = records(folder)
    with pytest.raises(UsageError, match="full_fine_tuning was measured with another config, base or data"):
        comparison.measure_seeds(other)
    assert records(folder) == before


def test_steps_of_equal_time() -> None:
    ours = [{"train_cpu_seconds": seconds, "steps": 40} for seconds in (20.0, 22.0, 90.0)]
    full = [{"train_cpu_seconds": seconds, "steps": 40} for seconds in (30.0, 33.0, 36.0)]
    assert comparison.equal_time_steps(ours, full) == round(40 * 22 / 33)


def test_verdicts_are_paired_over_the_seeds_that_both_have() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.rand(3, 50, generator=generator).round() for _ in range(2))
    zero = torch.zeros(50)
    correct = {"test": {EVERYTHING: list(ours), FULL: list(theirs[:2]), "zero_shot": [zero]}}
    found = verdicts.verdicts(correct, EVERYTHING)["test"]
    expected = paired_bootstrap(ours[:2], theirs[:2])
    assert found[FULL]["interval_95"] == [expected.low, expected.high]
    assert found[FULL]["seeds"] == 2
    assert found["zero_shot"]["seeds"] == 3
    assert found["zero_shot"]["difference"] == pytest.approx(100 * float(ours.mean()))
    assert verdicts.means(correct)["test"][EVERYTHING]["interval_95"] == found["zero_shot"]["interval_95"]
