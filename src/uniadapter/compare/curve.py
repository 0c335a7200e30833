"""Methods at several values of one setting: the size of the training set, say, or the number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.compare.arms import at_value
from uniadapter.compare.verdicts import Correct, verdicts
from uniadapter.files.writing import write_bytes
from uniadapter.report.plots import PALETTE, colour_index, rendered, style_of
from uniadapter.report.tables import METHODS

LOG_FROM = 8  # ratio of the values from which the axis is logarithmic


@dataclass(frozen=True)
class Varied:
    """What varies.

    Args:
        setting: its dotted name.
        own: its value in the config, at which the learning rates are chosen.
        values: the others.
    """

    setting: str
    own: float
    values: tuple[float, ...]

    def points(self, means: dict[str, Any]) -> dict[str, list[list[float]]]:
        """For each arm that was measured at several values: value, mean and the ends of its interval, by value.

        Args:
            means: of a test set, by arm.
        """
        found: dict[str, list[list[float]]] = {}
        for arm in means:
            named = {value: at_value(arm, value) for value in self.values} | {self.own: arm}
            there = [[value, means[one]["mean"], *means[one]["interval_95"]]
                     for value, one in sorted(named.items()) if one in means]  # fmt: skip
            if len(there) > 1:
                found[arm] = there
        return found

    def verdicts(self, correct: Correct, reference: str) -> dict[str, dict[str, Any]]:
        """For each value the reference against the other arms at the same value, on the test split."""
        tested = correct.get("test", {})
        found = {}
        for value in self.values:
            here = {one: tested[name] for one in tested if (name := at_value(one, value)) in tested}
            if reference in here:
                found[f"{value:g}"] = verdicts({"test": here}, reference).get("test", {})
        return found

    def to_dict(self, means: dict[str, Any], correct: Correct, reference: str) -> dict[str, Any]:
        """As an entry of the results."""
        return {
            "setting": self.setting, "own": self.own, "points": self.points(means.get("test", {})),
            "verdicts": self.verdicts(correct, reference),
        }  # fmt: skip


def curve(varied: dict[str, Any], path: Path | str) -> Path:
    """Plot the main score on the test split against the value of what varies, a line for each method.

    Args:
        varied: of `Varied.to_dict`.
        path: `.png` or `.svg`, written atomically.
    """
    path = Path(path)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style_of("curve")):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        colours = colour_index(list(varied["points"]))
        for arm, points in varied["points"].items():
            x, y, low, high = zip(*points, strict=True)
            ends = [[a - b for a, b in zip(y, low, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
            name, colour = METHODS.get(arm, arm.replace("_", " ")), PALETTE[colours[arm] % len(PALETTE)]
            axes.errorbar(x, y, yerr=ends, fmt="o-", color=colour, capsize=2, markersize=4, linewidth=1.2, label=name)
        values = sorted({point[0] for points in varied["points"].values() for point in points})
        if values and values[-1] > LOG_FROM * max(values[0], 1e-9):
            axes.set_xscale("log")
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
        axes.set_xlabel(varied["setting"])
        axes.set_ylabel("main score on test, 95% interval")
        if varied["points"]:
            axes.legend()
        return write_bytes(path, rendered(figure, path.suffix.removeprefix(".")))
