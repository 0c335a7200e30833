"""The command `compare`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from uniadapter.app.display import console, say
from uniadapter.app.parsing import config_path, read_config
from uniadapter.compare.arms import Arm, make_arms
from uniadapter.compare.comparison import Comparison, find_rates, measure_seeds
from uniadapter.compare.curve import Varied, curve
from uniadapter.compare.page import comparison_page
from uniadapter.compare.pareto import pareto
from uniadapter.compare.recipes import Splits
from uniadapter.compare.table import markdown, table
from uniadapter.compare.task_table import task_markdown, task_table
from uniadapter.compare.trials import Trials, steps_per_epoch
from uniadapter.config import CompareConfig, ConfigError, RunConfig
from uniadapter.files.writing import write_text
from uniadapter.training.resume import flatten_config

Part = Literal["rates", "seeds", "all", "results"]


def run_of(name: str) -> RunConfig:
    """The config of a file or name."""
    return read_config(config_path(name))


def with_methods(config: CompareConfig, only: tuple[str, ...]) -> CompareConfig:
    """The comparison of some methods, the reference, and those whose rates they take; () keeps all.

    Raises:
        ConfigError: there is no such method.
    """
    for name in only:
        if name not in config.methods:
            raise ConfigError(f"there is no method {name!r}, only {', '.join(config.methods)}")
    wanted = {*(only or config.methods), config.reference}
    wanted |= {config.methods[name].rates_of for name in wanted}
    return replace(config, methods={name: one for name, one in config.methods.items() if name in wanted})


def varied_of(config: CompareConfig, arms: dict[str, Arm], splits: Splits) -> Varied | None:
    """What varies in a comparison; where 0 stands for all visuals, or for as many steps as there are, their number."""
    for setting, values in config.vary.items():
        reference = arms[config.reference].config
        own = flatten_config(reference)[setting]
        if setting == "data.max_train_visuals" and not own:
            own = len(splits.get(reference, "train")["train"].visuals)
        if setting == "train.max_steps" and not own:
            own = reference.train.epochs * steps_per_epoch(reference, splits)
        return Varied(setting, float(own), tuple(map(float, values)))
    return None


def run_comparisons(
    configs: dict[str, CompareConfig], part: Part = "all", only: tuple[str, ...] = (), first: bool = True
) -> None:
    """Compare methods on several tasks, one after the other, and print and write one table of them all.

    Args:
        configs: by the names of the tasks.
        part: see `run_comparison`.
        only: names of methods; () takes all. What a task does not have is left out there.
        first: see `run_comparison`.

    Raises:
        ConfigError: no task has such a method, the references differ, or a setting is invalid.
        UsageError: see `run_comparison`.
    """
    if len({config.reference for config in configs.values()}) > 1:
        raise ConfigError("the comparisons have different references, so that they make no common table")
    for name in only:
        if not any(name in config.methods for config in configs.values()):
            raise ConfigError(f"there is no method {name!r} in {', '.join(configs)}")
    results = {}
    for name, config in configs.items():
        results[name] = run_comparison(config, part, tuple(one for one in only if one in config.methods), first)
    if first and part != "rates":
        some = next(iter(configs.values()))
        console.print(task_table(results, some.reference))
        written = write_text(Path(some.output).parent / "tasks.md", task_markdown(results, some.reference) + "\n")
        say(str(written))


def run_comparison(
    config: CompareConfig, part: Part = "all", only: tuple[str, ...] = (), first: bool = True
) -> dict[str, Any]:
    """Compare methods as a config says, and print and write the table.

    Run it in several processes at once to share the work; run it again to go on after an interruption.

    Args:
        config: of the comparison.
        part: "rates" on validation, "seeds" on test with the rates found before, "all" of both, or "results" of what is
            finished, without a run.
        only: names of methods; () takes all. The reference is always among them.
        first: whether this process prints and writes table, figures and page; of several, one should.

    Returns:
        The content of `results.json`; an empty dict after "rates".

    Raises:
        ConfigError: there is no such method, or a setting is invalid.
        UsageError: the rates are missing, or no rate within a wide grid is best.
    """
    folder = Path(config.output)
    trials, arms = Trials(folder / "records", folder=folder / "cache"), make_arms(with_methods(config, only), run_of)
    comparison = Comparison(
        arms,
        config.reference,
        config.seeds,
        trials,
        folder / "learning-rates.json",
        folder / "results.json",
        varied=varied_of(config, arms, trials.splits),
    )
    if part != "seeds":
        find_rates(comparison, run=part != "results")
    if part == "rates":
        return {}
    results = measure_seeds(comparison, run=part != "results")
    if not first:
        return results
    console.print(table(results, config.reference))
    write_text(folder / "results.md", markdown(results, config.reference) + "\n")
    figure = pareto(results, folder / "pareto.png")
    rates = json.loads(comparison.rates_file.read_text()) if comparison.rates_file.exists() else None
    figures = {"Score against cost": figure.read_bytes()}
    if "vary" in results:
        title = f"Score against {results['vary']['setting']}"
        figures = {title: curve(results["vary"], folder / "curve.png").read_bytes(), **figures}
    page = comparison_page(folder, results, rates, config.reference, figures)
    say(f"{folder / 'results.json'}\n{folder / 'results.md'}\n{page}")
    return results
