"""Settings of a comparison: a run's config, and the methods that depart from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from uniadapter.config.checks import File, Text, require, validate_fields
from uniadapter.config.model import Method

Rate = Annotated[float, Field(gt=0, lt=10)]
ADAPTER_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
OWN_WEIGHTS_RATES = (1e-4, 3e-4, 1e-3, 3e-3)


def usual_rates(method: Method) -> tuple[float, ...]:
    """The learning rates that a method tries first: lower where it trains the base's own layers."""
    return OWN_WEIGHTS_RATES if method in ("full", "last_layers") else ADAPTER_RATES


@dataclass
class MethodSettings:
    """One of the methods of a comparison.

    Args:
        run: a config of its own, a YAML file or the name of one in the package; null takes the comparison's.
        settings: what differs from it, by dotted names: `{model.method: lora}`.
        setting: name of a variant of a method, in the results' rows.
        equal_parameters: choose the width (`adapter.bottleneck` or `lora.r`) for as many trainable parameters as the
            reference has.
        equal_time: as many steps as take the reference's processor time, at the learning rate of `rates_of`.
        rates: learning rates to try on validation; null takes those usual for the method.
        rates_of: take the learning rate that was chosen for another method instead.
    """

    run: File | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    setting: Text = ""
    equal_parameters: bool = False
    equal_time: bool = False
    rates: list[Rate] | None = None
    rates_of: Text = ""

    def __post_init__(self) -> None:
        validate_fields(self, "methods")
        require(self.rates is None or len(set(self.rates)) >= 3, "methods: rates are fewer than 3, so that one of them "
                "would be chosen at the edge")  # fmt: skip
        require(not (self.rates and self.rates_of), "methods: rates and rates_of are both set; keep one")
        require(bool(self.rates_of) or not self.equal_time, "methods: equal_time needs rates_of")


@dataclass
class CompareConfig:
    """A comparison: `uniadapter compare CONFIG` reads exactly these keys from its YAML file.

    Args:
        run: config of the reference, and of all that does not differ: a YAML file, or the name of one in the package.
        settings: what differs from it for all methods, by dotted names: `{train.max_steps: 400}`.
        methods: by name.
        vary: one setting, by its dotted name, with the values at which methods are compared too, at the learning rates
            of its own value in the config: `{data.max_train_visuals: [500, 1000, 2000]}`. A figure shows the curves.
        reference: the method that the others are compared with.
        seeds: how many, 0 to n - 1.
        steps: of every run instead of the configs'; 0 takes theirs.
        output: folder of rates, results, records and tables.
    """

    run: File
    methods: dict[str, MethodSettings]
    settings: dict[str, Any] = field(default_factory=dict)
    vary: dict[str, list[int | float]] = field(default_factory=dict)
    reference: Text = "uniadapter"
    seeds: Annotated[int, Field(ge=1, le=1000)] = 5
    steps: Annotated[int, Field(ge=0)] = 0
    output: File = "results/compare"

    def __post_init__(self) -> None:
        validate_fields(self, "")
        require(self.reference in self.methods, f"reference is {self.reference!r}, which is none of the methods")
        require(len(self.vary) <= 1, "vary: one setting at a time")
        for setting, values in self.vary.items():
            require(len(set(values)) == len(values) > 0, f"vary.{setting}: give different values")
        for name, method in self.methods.items():
            other = self.methods.get(method.rates_of)
            known = not method.rates_of or (other is not None and not other.rates_of)
            require(known, f"methods.{name}.rates_of is {method.rates_of!r}: name a method that tries rates itself")
