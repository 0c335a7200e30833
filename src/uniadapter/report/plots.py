"""Plots of losses and learning rate over the steps: one panel per quantity, one colour per method."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniadapter.files.writing import write_bytes
from uniadapter.report.tables import method_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Mapping[str, Sequence[Mapping[str, Any]]]

# Safe for colour blindness (after Okabe and Ito); green is reserved for "right".
PALETTE = ("#0072b2", "#d55e00", "#8a5a9e", "#b8860b", "#c2477f", "#5b6770")
FIXED = {"uniadapter": 0, "full_fine_tuning": 1, "question_only": 2, "zero_shot": 5}
INK, GRID = "#1f2328", "#dfe3e8"

NOT_LOSSES = frozenset({"step", "epoch", "lr", "samples_per_second", "method"})
TITLES = {"loss": "loss", "lr": "learning rate"}
DRAWN = 400  # points of a smoothed line
SMOOTH_FROM = 60  # points; fewer are not smoothed
LOG_FROM = 8  # ratio of the methods' learning rates from which the axis is logarithmic


def colour_index(methods: Sequence[str]) -> dict[str, int]:
    """Each method's index in the palette; known methods have fixed ones."""
    places = {method: FIXED[method] for method in methods if method in FIXED}
    free = [place for place in range(len(PALETTE)) if place not in places.values()] or list(range(len(PALETTE)))
    unknown = [method for method in methods if method not in FIXED]
    return {**places, **{method: free[number % len(free)] for number, method in enumerate(unknown)}}


def quantities(history: History) -> list[str]:
    """Names of the quantities to plot: "loss", its parts, "lr"."""
    found: dict[str, None] = {}
    for records in history.values():
        for record in records:
            for key, value in record.items():
                if key not in NOT_LOSSES and isinstance(value, (int, float)):
                    found.setdefault(key)
    parts = sorted(found, key=lambda key: key != "loss")  # stable: the parts keep their order
    parts = [key for key in parts if key == "loss" or not _is_the_loss(key, history)]
    has_rate = any("lr" in record for records in history.values() for record in records)
    return [*parts, *(["lr"] if has_rate else [])]


def _is_the_loss(part: str, history: History) -> bool:
    """Whether a part equals the total loss, so that its curve would be a duplicate."""
    records = [record for logged in history.values() for record in logged if part in record]
    return all(_close(record[part], record.get("loss")) for record in records)


def _close(one: object, other: object) -> bool:
    numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
    return numbers and math.isclose(one, other, rel_tol=1e-6)  # type: ignore[arg-type]


def title_of(quantity: str) -> str:
    """A panel's title."""
    return TITLES.get(quantity, f"{quantity.replace('_', ' ')} loss")


def curves(history_by_method: History, path: Path | str) -> Path:
    """Plot the losses and the learning rate over the steps.

    Args:
        history_by_method: method to logged steps, each with "step", losses by name, and "lr".
        path: `.png` or `.svg`.

    Returns:
        The file, written atomically.

    Raises:
        ValueError: there are no steps.
        WriteError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    names = quantities(history_by_method)
    if not names:
        raise ValueError("curves: no step was logged, so there is nothing to plot (train.log_every may be too large)")
    path = Path(path)
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    with matplotlib.rc_context(style_of(str(path.name))):
        figure = Figure(figsize=(4.6 * columns, 2.6 * lines + 0.4), layout="constrained", facecolor="white")
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, name in zip(grid, names, strict=False):
            _panel(axes, history_by_method, name, title=True)
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        handles = _handles(history_by_method)
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handlelength=1.4)
        content = rendered(figure, path.suffix.lstrip(".") or "png")
    return write_bytes(path, content)


def panel_svg(history: History, quantity: str) -> str:
    """One panel as an inline `<svg>` that uses the page's CSS variables as colours."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style_of(quantity)):
        figure = Figure(figsize=(4.6, 2.35), layout="constrained", facecolor="none")
        _panel(figure.subplots(), history, quantity, title=False)
        svg = rendered(figure, "svg").decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    svg = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", head) + ">" + rest  # the page sets the size
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # unused, and duplicated in every panel
    svg = svg.replace("xlink:href", "href").replace(INK, "currentColor").replace(GRID, "var(--line)")
    svg = re.sub(r"font: ([\d.]+)px '[^;\"]*", r"font-size: \1px", svg)
    for place, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--c{place})")
    return re.sub(r"\s*\n\s*", " ", svg)


def style_of(salt: str) -> Any:  # matplotlib's own type lists every key
    """Settings of matplotlib for all figures; `salt` makes an SVG file reproducible."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,  # makes the file reproducible
        "path.simplify": True,
    }


def _panel(axes: Axes, history: History, quantity: str, title: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    colours = colour_index(list(history))
    peaks: list[float] = []
    seen: set[float] = set()
    for method, records in history.items():
        points = [(r["step"], float(r[quantity])) for r in records if isinstance(r.get(quantity), (int, float))]
        if not points:
            continue
        steps, values = [step for step, _ in points], [value for _, value in points]
        peaks.append(max(values))
        seen.update(steps)
        colour = PALETTE[colours[method]]
        marker = "o" if len(points) == 1 else None
        if quantity != "lr" and len(points) >= SMOOTH_FROM:
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
            steps, values = _smoothed(steps, values)
        axes.plot(steps, values, color=colour, linewidth=1.7, marker=marker, solid_capstyle="round")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.tick_params(length=0)
    axes.margins(x=0.01)
    if len(seen) == 1:  # else the axis would span a fraction of a step
        (step,) = seen
        axes.set_xlim(step - 1, step + 1)
        axes.set_xticks([step])
    if title:
        axes.set_title(title_of(quantity), loc="left", fontweight="bold", fontsize=9.5)
    if quantity != "lr":
        axes.yaxis.set_major_locator(MaxNLocator(5))
    else:
        _rate_axis(axes, peaks)


def _rate_axis(axes: Axes, peaks: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if min(peaks) > 0 and max(peaks) > LOG_FROM * min(peaks):
        floor = min(peaks) / 20  # linear below it, since most schedules end at zero
        axes.set_yscale("symlog", linthresh=floor, linscale=0.3)
        axes.set_ylim(0, max(peaks) * 2)
        axes.set_yticks([0, *_decades(floor, 2 * max(peaks))])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(FuncFormatter(_rate_text))
        return
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_rate_text))


def _rate_text(rate: float, _: int | None = None) -> str:
    return f"{rate:.1e}".replace("e-0", "e-").replace(".0e", "e") if rate else "0"


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _handles(history: History) -> list[Any]:
    from matplotlib.lines import Line2D

    colours = colour_index(list(history))
    return [Line2D([], [], color=PALETTE[colours[m]], linewidth=2.2, label=method_label(m)) for m in history]


def _smoothed(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Local linear regression over about a tenth of the points; unlike a running mean it does not lag.

    Returns:
        About `DRAWN` steps at most, including the first and the last, and the value at each.
    """
    import numpy as np

    last = len(values) - 1
    reach = min(200, max(3, len(values) // 20))
    places = sorted({*range(0, last, -(-len(values) // DRAWN)), last})
    result = []
    for place in places:
        near = slice(max(0, place - reach), place + reach + 1)
        _, level = np.polyfit(np.asarray(steps[near]) - steps[place], values[near], 1)
        result.append(float(level))
    return [steps[place] for place in places], result


def rendered(figure: Figure, kind: str) -> bytes:
    """A figure as the content of a `png` or `svg` file."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()
