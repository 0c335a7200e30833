"""`metrics.json` and `history.jsonl`: their schema as dataclasses, validated reading and atomic writing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Union

from uniadapter.files.writing import write_text

Scores = dict[str, Any]  # "r@1", "r@5", "r@10", "median_rank", "mean_rank"; with suffix "_itc" without reranking

DIRECTIONS = ("text_to_image", "image_to_text", "text_to_video", "video_to_text")


class ReportError(OSError):
    """A file of a run that is missing or invalid; the message says which, why, and what to do."""


@dataclass
class Row:
    """The result of one method on one test set.

    Args:
        method: "zero_shot", "uniadapter", "full_fine_tuning" or "question_only".
        trainable_parameters: number of parameters with gradients.
        trainable_percent: the same in percent of the task model's parameters without adapters.
        adapter_percent: the same without heads.
        checkpoint_bytes: size of the saved weights; 0 if none were saved.
        seconds: training and final evaluation.
        setting: name of a variant of the method.
        test_set: name of the test set, if there are several.
        text_to_image: scores of text queries: recall from 0 to 100, ranks from 1.
        image_to_text: scores of picture queries.
        text_to_video: scores of text queries on videos.
        video_to_text: scores of video queries.
        more: further values, such as "accuracy", "cider" and "bleu@4".
    """

    method: str
    trainable_parameters: int = 0
    trainable_percent: float = 0.0
    adapter_percent: float = 0.0
    checkpoint_bytes: int = 0
    seconds: float = 0.0
    setting: str | None = None
    test_set: str | None = None
    text_to_image: Scores | None = None
    image_to_text: Scores | None = None
    text_to_video: Scores | None = None
    video_to_text: Scores | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The object in the file: without fields that are None, and with the values of `more` at its top level."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "more"}
        return {**{key: value for key, value in named.items() if value is not None}, **self.more}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "a row") -> Row:
        """Validate a row of the file.

        Args:
            values: as from `to_dict`.
            where: position of the row, for errors.

        Raises:
            ReportError: a value is missing or of the wrong type.
        """
        if not isinstance(values.get("method"), str):
            raise ReportError(f"{where} has no method: expected a name such as uniadapter")
        for key in ("trainable_parameters", "trainable_percent", "adapter_percent", "checkpoint_bytes", "seconds"):
            value = values.get(key, None)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ReportError(f"{where} ({values['method']}): {key} is {value!r}, expected a number")
        for key in DIRECTIONS:
            if not isinstance(values.get(key, {}), Mapping):
                raise ReportError(f"{where} ({values['method']}): {key} is not an object of scores")
        named = {f.name for f in fields(cls)} - {"more"}
        known: dict[str, Any] = {
            key: dict(value) if key in DIRECTIONS else value for key, value in values.items() if key in named
        }
        return cls(**known, more={key: value for key, value in values.items() if key not in named})


@dataclass
class Metrics:
    """A run's `metrics.json`.

    Args:
        task: "retrieval", "vqa" or "caption".
        seed: of all random streams.
        rows: one per method, setting and test set.
        more: further top-level values (base, device, versions, hash of the split, …).
    """

    task: str
    seed: int
    rows: list[Row] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The object in the file."""
        return {"task": self.task, "seed": self.seed, **self.more, "rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "metrics") -> Metrics:
        """Validate the content of a file; errors start with `where`.

        Raises:
            ReportError: a value is missing or of the wrong type.
        """
        for key, kind, name in (("task", str, "a name"), ("seed", int, "a whole number"), ("rows", list, "a list")):
            if not isinstance(values.get(key), kind):
                raise ReportError(f"{where}: {key} is {values.get(key)!r}, expected {name}")
        rows = []
        for number, row in enumerate(values["rows"]):
            if not isinstance(row, Mapping):
                raise ReportError(f"{where}: rows[{number}] is not an object")
            rows.append(Row.from_dict(row, f"{where}: rows[{number}]"))
        more = {key: value for key, value in values.items() if key not in ("task", "seed", "rows")}
        return cls(values["task"], values["seed"], rows, more)

    @classmethod
    def of(cls, metrics: MetricsLike) -> Metrics:
        """`metrics` as a `Metrics`; plain values are validated."""
        return metrics if isinstance(metrics, Metrics) else cls.from_dict(metrics)


MetricsLike = Union[Metrics, Mapping[str, Any]]  # noqa: UP007  (evaluated at run time, also on Python 3.10)


def write_metrics(path: Path | str, metrics: MetricsLike) -> Path:
    """Validate and write `metrics.json`, atomically.

    Args:
        path: the file; its folder is created.
        metrics: numbers that are not finite become null, since JSON cannot hold them.

    Raises:
        ReportError: `metrics` is invalid.
        WriteError: the file cannot be written; the old one is unchanged.
    """
    text = json.dumps(_finite(Metrics.of(metrics).to_dict()), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, f"{text}\n")


def read_metrics(path: Path | str) -> Metrics:
    """Read and validate `metrics.json`.

    Raises:
        ReportError: it is missing, not JSON or invalid; one line that names the file and the value.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror or error}): is it a run's folder?") from error
    except ValueError as error:
        raise ReportError(f"{path}: not JSON ({error}): run the evaluation again to rewrite it") from error
    if not isinstance(values, dict):
        raise ReportError(f"{path}: expected an object with task, seed and rows")
    return Metrics.from_dict(values, str(path))


def read_history(path: Path | str, method: str = "uniadapter") -> dict[str, list[dict[str, Any]]]:
    """Read a run's `history.jsonl`.

    Args:
        path: the file.
        method: for lines without one.

    Returns:
        Method to its logged steps, in order; empty if there is no file. A line truncated by a crash is skipped.

    Raises:
        ReportError: the file cannot be read.
    """
    history: dict[str, list[dict[str, Any]]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return history
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror or error})") from error
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            history.setdefault(str(record.get("method", method)), []).append(record)
    return history


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
