"""`uniadapter compare`: methods on one's own data, from a YAML file to a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from squares import karpathy
from test_commands import base, write_run  # noqa: F401 - a fixture
from uniadapter.app.cli import main
from uniadapter.app.comparing import run_of, varied_of
from uniadapter.app.parsing import config_path, read_comparison, read_config
from uniadapter.compare.arms import make_arms, with_settings
from uniadapter.compare.pareto import frontier
from uniadapter.compare.recipes import Splits
from uniadapter.config import CompareConfig, ConfigError, RunConfig
from uniadapter.files.assets import package_path
from uniadapter.report.tables import NO_VALUE
from uniadapter.runs.ablation import trained_parameters

METHODS: dict[str, Any] = {
    "uniadapter": {"rates": [1e-3, 3e-3, 1e-2]},
    "plain": {"setting": "no sharing", "settings": {"model.adapter.share": "none"}, "equal_parameters": True},
    "lora": {"settings": {"model.method": "lora"}, "equal_parameters": True, "rates": [1e-3, 3e-3, 1e-2]},
    "bitfit": {"settings": {"model.method": "bitfit"}, "rates_of": "uniadapter"},
}
METHODS["plain"]["rates"] = [1e-3, 3e-3, 1e-2]


def write_comparison(folder: Path, base: Path, **changes: Any) -> Path:  # noqa: F811
    """A comparison of a tiny run of four steps."""
    files = karpathy(folder, "tiny")
    more = {"objective": {"queue_size": 0, "momentum": 0, "alpha": 0}, "train": {"epochs": 2, "batch_size": 4}}
    run = write_run(folder, base, files, **more)
    values = {"run": str(run), "methods": METHODS, "seeds": 2, "output": str(folder / "out"), **changes}
    file = folder / "comparison.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.mark.slow
def test_from_a_file_to_a_table_and_again_without_a_run(
    tmp_path: Path,
    base: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_comparison(tmp_path, base)
    assert main(["compare", str(file)]) == 0
    said = capsys.readouterr().out
    for name in ("zero-shot", "UniAdapter", "no sharing", "LoRA", "BitFit"):
        assert name in said
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    rows = [(row["arm"], row["seed"]) for row in results["rows"]]
    assert len(set(rows)) == len(rows) == 1 + 2 * 4
    trained = {row["arm"]: row["trainable_parameters"] for row in results["rows"]}
    for name in ("plain", "lora"):
        assert trained[name] == pytest.approx(trained["uniadapter"], rel=0.25), "a unit of so small a model"
    assert set(results["verdicts"]["test"]) == {"zero_shot", "plain", "lora", "bitfit"}
    table = (out / "results.md").read_text().splitlines()
    assert len(table) == 2 + 2 + 5
    assert len({line.count("|") for line in table[2:]}) == 1
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    for words in ("LoRA", "no sharing", "Learning rates", "data:image/png", "95% intervals"):
        assert words in page
    assert page.count("<table>") == 2
    record = json.loads(next(iter((out / "records").glob("test-*.json"))).read_text())
    assert {"config", "versions", "system", "device", "num_trainable_params", "right"} <= set(record)
    assert not any(str(tmp_path) in str(value) for value in record["config"].values())
    row = next(row for row in results["rows"] if row["arm"] == "lora")
    assert row["peak_memory_bytes"] > 10e6
    assert row["train_seconds"] > 0
    assert "curve" not in row
    records = {one.name: one.stat().st_mtime_ns for one in (out / "records").iterdir()}
    assert main(["compare", str(file)]) == 0
    assert {one.name: one.stat().st_mtime_ns for one in (out / "records").iterdir()} == records
    assert main(["compare", str(file), "--part", "results", "--only", "lora"]) == 0
    fewer = json.loads((out / "results.json").read_text())
    assert {row["arm"] for row in fewer["rows"]} == {"zero_shot", "uniadapter", "lora"}


def test_the_frontier_is_of_methods_that_no_other_beats_in_both() -> None:
    found = [("a", 1.0, 50.0, 0, 0), ("b", 2.0, 49.0, 0, 0), ("c", 2.0, 60.0, 0, 0), ("d", 9.0, 60.0, 0, 0)]
    assert frontier(found) == [(1.0, 50.0), (2.0, 60.0)]


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ["--only", "lorra"], "there is no method 'lorra'"),
        ({"reference": "full"}, [], "reference is 'full', which is none of the methods"),
        ({"methods": {"uniadapter": {"settings": {"model.adaptor.share": "none"}}}}, [], "methods.uniadapter"),
        ({"methods": {"uniadapter": {"settings": {"train.lr": "high"}}}}, [], "train.lr"),
        ({"methods": {"uniadapter": {"settings": {"train.lr.most": 1}}}}, [], "lr has no settings of its own"),
        ({"methods": {"uniadapter": {"rates_of": "other"}}}, [], "name a method that tries rates itself"),
        ({"methods": {"uniadapter": {"rates": [1e-3]}}}, [], "fewer than 3"),
        ({"methods": {"uniadapter": {"equal_time": True}}}, [], "equal_time needs rates_of"),
        (
            {"methods": {"uniadapter": {"settings": {"model.method": "bitfit"}, "equal_parameters": True}}},
            [],
            "no width",
        ),
        ({"methods": {"uniadapter": {"settings": {"train.keep": "best_on_test"}}}}, [], "set rates_of to the method"),
        (
            {"methods": {"uniadapter": {}, "a": {"setting": "x"}, "b": {"setting": "x"}}},
            [],
            "methods.b: rows named as methods.a's",
        ),
        (
            {"methods": {"uniadapter": {}, "uniadapter at 1": {"setting": "x"}}, "vary": {"train.max_steps": [1]}},
            [],
            "methods.uniadapter at 1 is what a method at another train.max_steps is called",
        ),
        ({"run": "no_such"}, [], "no_such: no such file"),
        ({"seeds": 0}, [], "seeds"),
        ({}, ["--part", "seeds"], "learning-rates.json is not there"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path,
    base: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    arguments: list[str],
    said: str,
) -> None:
    file = write_comparison(tmp_path, base, **changes)
    assert main(["compare", str(file), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out/records").exists() or not list((tmp_path / "out/records").iterdir())


@pytest.mark.parametrize("file", sorted(package_path("configs/compare").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_comparisons_of_the_package(file: Path) -> None:
    config = read_comparison(file.stem)
    assert config == read_comparison(str(file))
    others = set() if file.stem.startswith("parts") else {"full_fine_tuning"}
    assert {"uniadapter", *others} <= set(config.methods)
    assert config.seeds >= 3


@pytest.mark.parametrize("name", ["scenes", "vqa", "caption"])
def test_what_is_forgotten_is_measured_on_the_same_runs(name: str) -> None:
    """Nothing but the test sets differs from the comparison of the task itself."""
    other = read_comparison("forgetting" if name == "scenes" else f"forgetting_{name}")

    def read(run: str) -> RunConfig:
        return read_config(config_path(run))

    task, forgetting = make_arms(read_comparison(name), read), make_arms(other, read)
    for arm, made in forgetting.items():
        assert Path(made.config.data.test or "").parent.name == "drawn"
        same = replace(made.config.data, test=task[arm].config.data.test, extra_tests=task[arm].config.data.extra_tests)
        assert replace(made, config=replace(made.config, data=same)) == task[arm]


def test_settings_of_all_methods(tmp_path: Path, base: Path) -> None:  # noqa: F811
    file = write_comparison(tmp_path, base, settings={"train.weight_decay": 0.25, "model.adapter.scale": 0.5})
    arms = make_arms(read_comparison(str(file)), lambda run: read_config(config_path(run)))
    assert {arm.config.train.weight_decay for arm in arms.values()} == {0.25}
    assert arms["uniadapter"].config.model.adapter.scale == 0.5


def test_settings_by_dotted_names() -> None:
    config = RunConfig()
    changed = with_settings(config, {"model.adapter.share": "none", "train.lr": 0.5, "data.extra_tests": {"a": "b"}})
    assert (changed.model.adapter.share, changed.train.lr, changed.data.extra_tests) == ("none", 0.5, {"a": "b"})
    assert with_settings(config, {}) == config
    with pytest.raises(ConfigError, match="methods: rates and rates_of"):
        CompareConfig("run", {"uniadapter": read_comparison("scenes").methods["equal_time"].__class__(
            rates=[1e-3, 3e-3, 1e-2], rates_of="a")})  # fmt: skip


def test_counted_parameters_are_those_that_a_run_trains() -> None:
    config = with_settings(RunConfig(), {"model.method": "lora", "model.lora.r": 3})
    more = with_settings(config, {"model.lora.r": 4})
    dora = with_settings(config, {"model.method": "dora"})
    heads = trained_parameters(with_settings(config, {"model.method": "heads"}))
    assert (trained_parameters(config) - heads) % 3 == 0
    assert trained_parameters(more) - heads == 4 * (trained_parameters(config) - heads) // 3
    assert trained_parameters(dora) > trained_parameters(config)


def test_one_table_of_several_tasks(
    tmp_path: Path,
    base: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    of_uniadapter: dict[str, Any] = {"rates_of": "uniadapter"}
    methods: dict[str, Any] = {"uniadapter": {"rates": [1e-3, 3e-3, 1e-2]}, "bitfit": METHODS["bitfit"]}
    heads = {"heads": of_uniadapter | {"settings": {"model.method": "heads"}}}
    files = []
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
        more = methods | (heads if name == "far" else {})
        file = write_comparison(tmp_path / name, base, methods=more, seeds=1, steps=1)
        files.append(str(file.rename(file.with_name(f"{name}.yaml"))))
    out = tmp_path / "both"
    assert main(["compare", *files, "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Mean ± standard deviation" in said
    lines = (out / "tasks.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| zero-shot", "| BitFit", "| UniAdapter", "| heads only"]
    assert lines[0] == "|  | near, text → image R@1 | far, text → image R@1 |"
    assert lines[5].split(" | ")[1] == NO_VALUE  # a method that this task has not
    rows = json.loads((out / "far/results.json").read_text())
    found = -rows["verdicts"]["test"]["heads"]["difference"]
    assert f"<br>{found:+.1f} (" in lines[5]
    before = sorted(path.stat().st_mtime_ns for path in out.glob("*/records/*"))
    assert main(["compare", *files, "--output", str(out), "--only", "heads", "--part", "results"]) == 0
    assert sorted(path.stat().st_mtime_ns for path in out.glob("*/records/*")) == before
    assert main(["compare", *files, "--output", str(out), "--only", "head"]) == 2
    assert "there is no method 'head' in near, far" in capsys.readouterr().err
    assert main(["compare", files[0], files[0]]) == 2
    assert "same name" in capsys.readouterr().err


def test_methods_at_several_values_of_a_setting(tmp_path: Path, base: Path) -> None:  # noqa: F811
    methods = {"uniadapter": {"rates": [1e-3, 3e-3, 1e-2]}, "lora": METHODS["lora"]}
    file = write_comparison(tmp_path, base, methods=methods, seeds=2, vary={"train.max_steps": [1, 2]})
    assert main(["compare", str(file)]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    own = next(row["steps"] for row in results["rows"] if row["arm"] == "uniadapter")
    varied = results["vary"]
    assert varied["setting"] == "train.max_steps"
    steps = {(row["arm"], row["steps"]) for row in results["rows"] if row["arm"] != "zero_shot"}
    assert steps == {
        (name + at, count) for name in ("uniadapter", "lora") for at, count in (("", own), (" at 1", 1), (" at 2", 2))
    }
    assert {row["setting"] for row in results["rows"] if row["arm"] == "lora at 1"} == {"train.max_steps 1"}
    assert len({row["lr"] for row in results["rows"] if row["method"] == "lora"}) == 1, "the rate of its own value"
    for arm, points in varied["points"].items():
        assert [point[0] for point in points] == [1.0, 2.0, float(own)]
        assert points[0][1:] == [
            results["means"]["test"][f"{arm} at 1"]["mean"], *results["means"]["test"][f"{arm} at 1"]["interval_95"],
        ]  # fmt: skip
    assert set(varied["verdicts"]) == {"1", "2"}
    assert set(varied["verdicts"]["1"]) == {"lora"}
    page = (tmp_path / "out/report.html").read_text()
    assert "Score against train.max_steps" in page
    assert page.count("<img") == 2
    assert (tmp_path / "out/curve.png").read_bytes().startswith(b"\x89PNG")


def test_variants_without_a_setting_are_called_by_their_names(tmp_path: Path, base: Path) -> None:  # noqa: F811
    methods = {
        "wide_adapters": {"settings": {"model.adapter.bottleneck": 8}},
        "uniadapter": {},
        "lora": {"settings": {"model.method": "lora"}},
        "lora_4": {"settings": {"model.method": "lora", "model.lora.r": 4}},
        "named": {"settings": {"model.adapter.scale": 0.1}, "setting": "weak"},
        "few_candidates": {"settings": {"model.method": "none", "evaluate.k": 2}},
    }
    arms = make_arms(read_comparison(str(write_comparison(tmp_path, base, methods=methods))), run_of)
    assert {name: (arm.method, arm.setting) for name, arm in arms.items()} == {
        "wide_adapters": ("uniadapter", "wide adapters"), "uniadapter": ("uniadapter", ""), "lora": ("lora", ""),
        "lora_4": ("lora", "lora 4"), "named": ("uniadapter", "weak"),
        "few_candidates": ("zero_shot", "few candidates"),
    }  # fmt: skip


def test_the_size_of_the_training_set_may_vary(tmp_path: Path, base: Path) -> None:  # noqa: F811
    file = write_comparison(tmp_path, base, vary={"data.max_train_visuals": [4]})
    config = read_comparison(str(file))
    arms = make_arms(config, run_of)
    assert arms["lora at 4"].config.data.max_train_visuals == 4
    assert arms["lora at 4"].rates_of == "lora"
    assert arms["bitfit at 4"].rates_of == "uniadapter"
    splits = Splits()
    whole, part = (splits.get(arms[name].config, "train")["train"] for name in ("lora", "lora at 4"))
    assert len(part.visuals) == 4 < len(whole.visuals)
    assert part.texts == [text for text, visual in zip(whole.texts, whole.text_visual, strict=True) if visual < 4]
    varied = varied_of(config, arms, splits)
    assert varied is not None
    assert varied.own == len(whole.visuals)


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({"train.max_steps": []}, "vary.train.max_steps: give different values"),
        ({"train.max_steps": [1, 1]}, "give different values"),
        ({"train.max_steps": [1], "train.seed": [1]}, "vary: one setting at a time"),
        ({"train.most_steps": [1]}, "most_steps"),
        ({"train.max_steps": [-1]}, "train.max_steps"),
    ],
)
def test_what_cannot_vary(
    tmp_path: Path,
    base: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    vary: dict[str, Any],
    said: str,
) -> None:
    assert main(["compare", str(write_comparison(tmp_path, base, vary=vary))]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
