"""What a run was made with, kept in its checkpoint: a run is gone on with only by one that would do the same."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit
from uniadapter.errors import CheckpointError
from uniadapter.files.messages import shortened
from uniadapter.model.identity import base_hash

# What may be another when a run is gone on with, and why; everything else may not.
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
    "data.on_error": "what to do with the next picture that cannot be read",
    "data.workers": "who loads a sample does not change it",
    "train.save_every": "saving changes nothing",
    "train.log_every": "logging changes nothing",
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

# Where the best validation decides which weights are kept, what validation measures may not change on the way.
DECIDES_BEST = (
    "data.val", "evaluate.k", "evaluate.beta", "evaluate.dual_softmax", "evaluate.answers", "evaluate.beams",
    "evaluate.longest", "evaluate.shortest",
)  # fmt: skip

_LOOKED_AT = 1000  # files of a training set whose size is looked at


def made_with(config: RunConfig, split: RetrievalSplit, model: Any) -> dict[str, Any]:
    """What a run is made with, as plain values.

    Args:
        config: the run's.
        split: its training data.
        model: as prepared, before anything was trained or taken up.
    """
    return {"config": flat(config), "data": data_hash(split), "base": base_hash(model)}


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config's values by their dotted names, as JSON has them."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            values |= flat(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = json.loads(json.dumps(value))
    return values


def data_hash(split: RetrievalSplit) -> str:
    """A hash of a split's records in their order, and of the sizes of up to a thousand of their files."""
    digest = hashlib.sha256()
    for field in fields(split):
        if field.name not in ("name", "visuals", "origins", "skipped", "notes"):
            digest.update(json.dumps([field.name, getattr(split, field.name)], default=str).encode())
    named = [os.fspath(visual) for visual in split.visuals if isinstance(visual, (str, os.PathLike))]
    digest.update(json.dumps([Path(name).name for name in named]).encode())
    for name in named[:: max(1, len(named) // _LOOKED_AT)]:
        digest.update(f"{os.path.getsize(name) if os.path.isfile(name) else 0} ".encode())
    return digest.hexdigest()


def check_same(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Refuse to go on with a run that was made with something else.

    Args:
        saved: the checkpoint's.
        now: this run's.
        path: of the checkpoint, for the error.

    Raises:
        CheckpointError: one line with the fields that differ, as they were and as they are.
    """
    before, after = (dict(one.get("config") or {}) for one in (saved, now))
    usual = flat(RunConfig())  # of a field that the other side does not know
    strict = DECIDES_BEST if after.get("train.keep") == "best" else ()
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
            f"{path} was made otherwise: {'; '.join(differing[:3])}{more}; use that again, or start anew"
        )
