"""The fingerprint of a run (settings, data, base weights), by which a checkpoint resumes only the same run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from uniadapter.config import RunConfig
from uniadapter.data.large_splits import LargeSplit
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.errors import CheckpointError
from uniadapter.files.messages import shortened
from uniadapter.model.identity import base_hash

logger = logging.getLogger(__name__)

# Settings that may change when a run is resumed, and why; all others may not.
MAY_DIFFER = {
    "output": "the folder may have been moved",
    "model.base": "the base's weights are compared instead of its name",
    "model.checkpoint_vision": "less memory, the same mathematics",
    "model.frame_chunk": "less memory, the same mathematics",
    "data.train": "the records are compared instead of the file's name",
    "data.captions": "as data.train",
    "data.annotations": "as data.train",
    "data.layout": "as data.train",
    "data.root": "as data.train; pictures may have been moved",
    "data.val": "read, never trained on",
    "data.test": "read, never trained on",
    "data.extra_tests": "read, never trained on",
    "data.on_error": "applies to the next picture that cannot be read",
    "data.workers": "samples do not depend on the worker",
    "data.timeout": "as data.workers",
    "data.most_lost_shards": "applies to the next shard that cannot be read",
    "data.cache": "where copies are",
    "train.max_minutes": "where it stops changes nothing",
    "train.micro_batch": "less memory, the same mathematics",
    "train.fsdp": "less memory, the same mathematics",
    "train.skip_bad_steps": "it changes nothing before the next bad step",
    "train.save_every": "saving changes nothing",
    "train.log_every": "logging changes nothing",
    "train.trackers": "logging changes nothing",
    "train.project": "logging changes nothing",
    "train.compile_vision": "more speed, the same mathematics",
    "evaluate.k": "measured at the end",
    "evaluate.beta": "measured at the end",
    "evaluate.dual_softmax": "measured at the end",
    "evaluate.answers": "measured at the end",
    "evaluate.beams": "measured at the end",
    "evaluate.longest": "measured at the end",
    "evaluate.shortest": "measured at the end",
    "evaluate.batch_size": "memory and speed",
    "evaluate.block": "memory and speed",
    "evaluate.features": "memory and speed",
    "evaluate.features_bf16": "memory and speed",
}

# With train.keep = "best", validation selects the weights, so these settings of validation may not change either.
DECIDES_BEST = (
    "data.val", "evaluate.k", "evaluate.beta", "evaluate.dual_softmax", "evaluate.answers", "evaluate.beams",
    "evaluate.longest", "evaluate.shortest",
)  # fmt: skip

_MAX_FILES_HASHED = 1000  # files of a training set whose sizes are part of the fingerprint


def run_fingerprint(config: RunConfig, split: TrainingSet, model: Any) -> dict[str, Any]:
    """The fingerprint of a run as plain values: its settings, and hashes of its data and base weights.

    Args:
        config: of the run.
        split: its training data.
        model: the prepared model, before training and before a checkpoint is loaded.
    """
    return {"config": flatten_config(config), "data": data_hash(split), "base": base_hash(model)}


def flatten_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config's values by dotted name ("train.lr"), as in JSON."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            values |= flatten_config(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = json.loads(json.dumps(value))
    return values


def data_hash(split: TrainingSet) -> str:
    """A hash of a split's records in order, and of the sizes of about a thousand of their files; of shards, theirs."""
    if isinstance(split, LargeSplit):
        return split.digest
    assert isinstance(split, RetrievalSplit)
    digest = hashlib.sha256()
    for field in fields(split):
        value = getattr(split, field.name)
        if field.name == "text_group" and not value:
            continue  # so that runs from before there was this field can be resumed
        if field.name not in ("name", "visuals", "origins", "skipped", "errors", "notes"):
            digest.update(json.dumps([field.name, value], default=str).encode())
    named = [os.fspath(visual) for visual in split.visuals if isinstance(visual, (str, os.PathLike))]
    digest.update(json.dumps([Path(name).name for name in named]).encode())
    for name in named[:: max(1, len(named) // _MAX_FILES_HASHED)]:
        digest.update(f"{os.path.getsize(name) if os.path.isfile(name) else 0} ".encode())
    return digest.hexdigest()


def check_processes(saved: int, now: int, bound: str, path: Path) -> None:
    """Refuse another number of processes where it would change the loss, and say what else differs where it does not.

    Args:
        saved: number of processes that wrote the checkpoint.
        now: number of processes of this run.
        bound: why the loss depends on it; "" if it does not.
        path: of the checkpoint, for the error.

    Raises:
        CheckpointError: the loss would be another one.
    """
    if saved == now:
        return
    if bound:
        raise CheckpointError(f"{path}: the run has had {saved} processes, and {bound}; go on with {saved}, not {now}")
    logger.info(
        "%d process%s instead of %d: the same batches and draws but for dropout, which depends on the process; "
        "sums are rounded differently", now, "es" * (now > 1), saved,
    )  # fmt: skip


def check_resumable(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint of a run with other settings, data or base weights.

    Args:
        saved: fingerprint in the checkpoint.
        now: fingerprint of this run.
        path: of the checkpoint, for the error.

    Raises:
        CheckpointError: one line with the old and new values of the settings that differ.
    """
    before, after = (dict(one.get("config") or {}) for one in (saved, now))
    usual = flatten_config(RunConfig())  # defaults for fields that one of the versions does not have
    keep = after.get("train.keep", "last")
    strict = () if keep == "last" else (*DECIDES_BEST, "data.test") if keep == "best_on_test" else DECIDES_BEST
    differing = []
    for name in sorted(set(before) | set(after)):
        was, given = before.get(name, usual.get(name)), after.get(name, usual.get(name))
        if was != given and (name not in MAY_DIFFER or name in strict):
            differing.append(f"{name} was {shortened(str(was), 40)}, now {shortened(str(given), 40)}")
    if before and saved.get("data") != now.get("data"):
        differing.append("the records of data.train or their order have changed")
    if before and saved.get("base") != now.get("base"):
        differing.append("model.base has other weights")
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise CheckpointError(
            f"{path} is of another run: {'; '.join(differing[:3])}{more}; use the same values, or start a new run"
        )
