"""Experiment trackers beside a run's own log, through Accelerate: TensorBoard, Weights & Biases, trackio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uniadapter.config import ConfigError, RunConfig
from uniadapter.processes.distributed import is_main
from uniadapter.training.progress import ProgressEvent
from uniadapter.training.resume import flatten_config

TENSORBOARD = "tensorboard"  # its folder in the run's
TRACKIO = "trackio"
_PLAIN = (bool, int, float, str, type(None))


class Tracking:
    """The trackers of a run, which get what its log gets.

    Args:
        started: trackers of Accelerate.
    """

    def __init__(self, started: Sequence[Any]) -> None:
        self.started, self.step = started, 0

    def __call__(self, event: ProgressEvent) -> None:
        """Log a step."""
        self.step = event.step
        losses = {f"train/{name}": value for name, value in event.losses.items()}
        self._log({**losses, "train/lr": event.lr, "train/samples_per_second": event.samples_per_second})

    def validated(self, score: float) -> None:
        """Log the main figure on validation, 0 to 100, at the last step that was logged."""
        self._log({"validation": score})

    def _log(self, values: dict[str, float]) -> None:
        for tracker in self.started:
            tracker.log(values, step=self.step)


@contextmanager
def tracking(config: RunConfig, folder: Path) -> Iterator[Tracking]:
    """Start the trackers of `train.trackers`, and finish them after the block.

    Args:
        config: of the run; its settings are stored with each tracker.
        folder: of the run; its name is the run's, and TensorBoard's files and wandb's are below it.

    Raises:
        ConfigError: a tracker is not installed.
    """
    for name in config.train.trackers:
        if find_spec(name) is None:
            raise ConfigError(f"train.trackers names {name}, which is not installed: pip install {name}")
    started = [_started(name, config, folder) for name in config.train.trackers]
    flat = flatten_config(config).items()
    for tracker in started:
        tracker.store_init_configuration({key: one if isinstance(one, _PLAIN) else str(one) for key, one in flat})
    try:
        yield Tracking(started)
    finally:
        for tracker in started:
            _finish(tracker)


def _finish(tracker: Any) -> None:
    if tracker.name == TRACKIO and is_main():
        import trackio

        trackio.finish()  # Accelerate's own leaves the run open, and trackio finishes it again when Python ends
    else:
        tracker.finish()


def _started(name: str, config: RunConfig, folder: Path) -> Any:
    """A tracker of Accelerate that has begun."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    made = LOGGER_TYPE_TO_CLASS[name]
    folder.mkdir(parents=True, exist_ok=True)
    if name == TENSORBOARD:
        tracker = made(TENSORBOARD, logging_dir=folder)
    elif name == "wandb":
        tracker = made(config.train.project, name=folder.name, dir=str(folder))
    else:
        tracker = made(config.train.project, name=folder.name)
    tracker.start()
    return tracker
