"""How the memory of a training step grows at BLIP-base size: with frames, and with the batch.

    python benchmarks/growth.py

Videos of 224 px, float32, one step in a process of its own for each point (see frames.py); all at once, and with chunks
of four frames and checkpointing. Writes benchmarks/results/growth.json and docs/memory.png.
"""

from __future__ import annotations

import json
from typing import Any

import matplotlib.pyplot as plt
from base_size import RESULTS, machine
from frames import measured
from scaling import DOCS

SETTINGS = ("all at once", "chunks of 4, checkpointing")
FRAMES = {"frames": [(2, frames) for frames in (1, 2, 4, 8)], "batch": [(batch, 2) for batch in (1, 2, 4, 8)]}


def plot(series: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """One panel for frames, one for the batch."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for axes, (name, settings) in zip(panels, series.items(), strict=True):
        for setting, points in settings.items():
            axes.plot([p[name] for p in points], [p["peak_mb"] / 1024 for p in points], marker="o", label=setting)
        axes.set(xlabel="frames, batch of 2" if name == "frames" else "batch, 2 frames")
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("GB above the loaded model")
    panels[0].legend()
    figure.suptitle("Memory of a training step, BLIP-base, 224 px, float32")
    figure.savefig(DOCS / "memory.png", dpi=130)


def main() -> None:
    """Measure, write, draw."""
    series: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, points in FRAMES.items():
        for setting in SETTINGS:
            series.setdefault(name, {})[setting] = [
                {"batch": batch, "frames": frames, "peak_mb": round(measured(setting, batch, frames, 1)["peak_mb"])}
                for batch, frames in points
            ]
    (RESULTS / "growth.json").write_text(json.dumps({"device": machine(), "series": series}, indent=2) + "\n")
    plot(series)


if __name__ == "__main__":
    main()
