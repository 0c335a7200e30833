"""What is compared: each method as a run's config, with the learning rates that it tries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from uniadapter.config import (
    AdapterConfig,
    CompareConfig,
    ConfigError,
    MethodSettings,
    ModelConfig,
    RunConfig,
    TrainConfig,
    usual_rates,
)
from uniadapter.files.schema import SchemaError, validated
from uniadapter.runs.ablation import with_parameters_of
from uniadapter.runs.steps import resolve_data

QUESTION_ONLY = "question_only"  # the method of rows on blank pictures
ZERO_SHOT = "zero_shot"  # the base as it is, measured in every comparison without being named


@dataclass(frozen=True)
class Arm:
    """A method, or a variant of one, in a comparison.

    Args:
        method: in the results' rows.
        setting: of the rows; "" for the method itself.
        config: of its runs; rate, seed and number of steps are set for each run.
        grid: the learning rates that it tries; empty if it takes another arm's.
        rates_of: the arm whose chosen rate it takes.
        equal_time: whether it trains for the reference's processor time.
    """

    method: str
    setting: str
    config: RunConfig
    grid: tuple[float, ...] = ()
    rates_of: str = ""
    equal_time: bool = False


def make_arms(comparison: CompareConfig, read: Callable[[str], RunConfig]) -> dict[str, Arm]:
    """The arms of a comparison by name.

    Args:
        comparison: of the methods.
        read: the config of a file or name; its embedded data are made here.

    Raises:
        ConfigError: a setting does not exist or has an invalid value; names the method.
    """
    reference = _config(comparison, comparison.reference, read)
    arms = {}
    for name, one in comparison.methods.items():
        config = _config(comparison, name, read)
        if one.equal_parameters:
            config = with_parameters_of(config, reference)
        if config.train.keep == "best_on_test" and not one.rates_of:
            raise ConfigError(
                f"methods.{name}: train.keep is best_on_test, and learning rates must not be chosen there too: set "
                "rates_of to the method whose rate it takes"
            )
        method = QUESTION_ONLY if config.data.blank else config.model.method_name
        grid = () if one.rates_of else tuple(one.rates or usual_rates(config.model.method))
        arms[name] = Arm(method, one.setting, config, grid, one.rates_of, one.equal_time)
    arms = _told_apart(arms, comparison.reference)
    for setting, values in comparison.vary.items():
        varied = _varied(arms, setting, values)
        if twice := sorted(arms.keys() & varied.keys()):
            raise ConfigError(f"methods.{twice[0]} is what a method at another {setting} is called: name it otherwise")
        arms |= varied
    return arms


def _told_apart(arms: dict[str, Arm], reference: str) -> dict[str, Arm]:
    """The arms with no two rows alike: variants of a method without a `setting` are called by their names."""
    called = {(ZERO_SHOT, ""): ZERO_SHOT}
    made = {}
    for name in sorted(arms, key=lambda name: name != reference):  # the reference keeps the method's bare name
        arm = arms[name]
        if not arm.setting and (arm.method, "") in called:
            arm = replace(arm, setting=name.replace("_", " "))
        row = (arm.method, arm.setting)
        if row in called:
            raise ConfigError(f"methods.{name}: rows named as methods.{called[row]}'s: give it another `setting`")
        called[row], made[name] = name, arm
    return {name: made[name] for name in arms}


def at_value(name: str, value: float) -> str:
    """The name of an arm at another value of what varies."""
    return f"{name} at {value:g}"


def _varied(arms: dict[str, Arm], setting: str, values: Sequence[float]) -> dict[str, Arm]:
    """The arms at other values of a setting, at the rates of its own value; those with equal time are left out."""
    made = {}
    for name, arm in arms.items():
        for value in values:
            label = f"{arm.setting}, {setting} {value:g}".removeprefix(", ")
            config = with_settings(arm.config, {setting: value})
            if config != arm.config and not arm.equal_time:
                made[at_value(name, value)] = Arm(
                    arm.method, label, with_enough_epochs(config), (), arm.rates_of or name
                )
    return made


def _config(comparison: CompareConfig, name: str, read: Callable[[str], RunConfig]) -> RunConfig:
    one: MethodSettings = comparison.methods[name]
    config = read(one.run or comparison.run)
    if comparison.steps:
        config = with_training(config, max_steps=comparison.steps)
    try:
        config = with_settings(config, {**comparison.settings, **one.settings})
    except (SchemaError, ConfigError) as error:
        raise ConfigError(f"methods.{name}: {error}") from None
    return replace(config, data=resolve_data(config.data))  # once all settings are known: they may name other data


def with_settings(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """The config with changed settings, by dotted names.

    Raises:
        SchemaError, ConfigError: a name does not exist, or a value is invalid.
    """
    values = config.to_dict()
    for name, value in settings.items():
        *sections, last = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name}: {section} has no settings of its own")
        place[last] = value
    return validated(values, RunConfig, "settings")


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    """The config with changed `train` settings."""
    return replace(config, train=replace(config.train, **changes))


def with_enough_epochs(config: RunConfig) -> RunConfig:
    """The config with epochs for all of its steps: less data, or more steps, take more; none has less than a step."""
    return with_training(config, epochs=max(config.train.epochs, config.train.max_steps))


def untrained(config: RunConfig) -> RunConfig:
    """The config that evaluates the base as it is; the same whatever is trained beside it."""
    bare, plain = config.untrained(), ModelConfig()
    model = replace(bare.model, adapter=AdapterConfig(), lora=plain.lora, last_layers=plain.last_layers)
    return replace(bare, model=model, train=TrainConfig())


def next_rate(rate: float, up: bool) -> float:
    """The next learning rate in 1, 3, 10, 30, …; a factor of about 3 away."""
    digit, exponent = f"{rate:.0e}".split("e")
    if digit not in ("1", "3"):
        raise ConfigError(f"a learning rate of {rate:g} is not 1 or 3 times a power of ten, so no grid goes on from it")
    if up:
        return float(f"3e{exponent}") if digit == "1" else float(f"1e{int(exponent) + 1}")
    return float(f"1e{exponent}") if digit == "3" else float(f"3e{int(exponent) - 1}")


def wider(grid: tuple[float, ...], best: float) -> tuple[float, ...]:
    """The grid with one rate more, on the side on which its best rate stands."""
    up = 2 * grid.index(best) >= len(grid)
    return (*grid, next_rate(grid[-1], True)) if up else (next_rate(grid[0], False), *grid)
