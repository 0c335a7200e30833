"""What each method reaches for what it costs: the main score against parameters, bytes, time and memory."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from uniadapter.files.writing import write_bytes
from uniadapter.report.plots import INK, PALETTE, colour_index, rendered, style_of
from uniadapter.report.tables import METHODS

COSTS = {
    "trainable_parameters": "trained parameters",
    "checkpoint_bytes": "bytes to keep for the task",
    "train_seconds": "seconds of training",
    "peak_memory_bytes": "peak memory, bytes",
}


def points(results: dict[str, Any], cost: str) -> list[tuple[str, float, float, float, float]]:
    """Name, median cost, mean of the main score and the ends of its interval, of each method that has the cost.

    Zero-shot costs nothing, and a question alone is no method: they are left out.
    """
    found = []
    for arm, mean in results["means"]["test"].items():
        rows = [row for row in results["rows"] if row["arm"] == arm and "test_set" not in row]
        if rows[0]["method"] in ("zero_shot", "question_only"):
            continue
        costs = [row[cost] for row in rows if row.get(cost)]
        if costs:
            low, high = mean["interval_95"]
            found.append((arm, statistics.median(costs), mean["mean"], low, high))
    return found


def frontier(found: list[tuple[str, float, float, float, float]]) -> list[tuple[float, float]]:
    """Cost and score of the methods that no other beats in both, by cost."""
    best: list[tuple[float, float]] = []
    for _, cost, score, _, _ in sorted(found, key=lambda one: (one[1], -one[2])):
        if not best or score > best[-1][1]:
            best.append((cost, score))
    return best


def pareto(results: dict[str, Any], path: Path | str) -> Path:
    """Plot the main score on the test split against each cost that was measured.

    Args:
        results: of `measure_seeds`.
        path: `.png` or `.svg`, written atomically.
    """
    path = Path(path)
    panels = {cost: found for cost in COSTS if len(found := points(results, cost)) > 1}
    kind = path.suffix.removeprefix(".")
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    with matplotlib.rc_context(style_of("pareto")):
        figure = Figure(figsize=(3.6 * max(1, len(panels)) + 0.6, 3.4), layout="constrained", facecolor="white")
        colours = colour_index([arm for arm, *_ in next(iter(panels.values()), [])])
        for place, (cost, found) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), place + 1)
            for arm, x, y, low, high in found:
                colour, name = PALETTE[colours[arm] % len(PALETTE)], METHODS.get(arm, arm.replace("_", " "))
                ends = [[y - low], [high - y]]
                axes.errorbar(x, y, yerr=ends, fmt="o", color=colour, capsize=2, markersize=5, label=name)
            axes.step(*zip(*frontier(found), strict=True), where="post", color=INK, linewidth=0.7, alpha=0.4, zorder=0)
            if max(one[1] for one in found) > 8 * min(one[1] for one in found):
                axes.set_xscale("log")
            else:
                axes.xaxis.set_major_locator(MaxNLocator(4))
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 90k, 2.5G
            axes.margins(x=0.2)
            axes.set_xlabel(COSTS[cost])
        if panels:
            figure.axes[0].set_ylabel("main score on test, 95% interval")
            figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=6)
        return write_bytes(path, rendered(figure, kind))
