"""Mutations of tensors and of their names; files of pickles that carry code."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import random
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzzing.running import CANARY

State = dict[Any, Any]


def mutated_state(state: State, rng: random.Random) -> tuple[State, str]:
    """A copy with one tensor or name changed, and what was done."""
    state = dict(state)
    key = rng.choice([name for name, value in state.items() if isinstance(value, Tensor)])
    tensor: Tensor = state[key]
    forms: dict[str, Callable[[], Any]] = {
        "scalar": lambda: torch.tensor(1.0),
        "empty": lambda: torch.empty(0),
        "noside": lambda: torch.empty(*tensor.shape[:-1], 0),
        "flat": lambda: tensor.flatten(),
        "deep": lambda: tensor[None, None],
        "turned": lambda: tensor.t().contiguous() if tensor.dim() == 2 else tensor[:-1],
        "short": lambda: tensor[:-1].contiguous(),
        "twice": lambda: torch.cat([tensor, tensor]),
        "half": lambda: tensor.half(),
        "double": lambda: tensor.double(),
        "integers": lambda: tensor.to(torch.int64),
        "truth": lambda: tensor > 0,
        "complex": lambda: tensor.to(torch.complex64),
        "float8": lambda: tensor.to(torch.float8_e4m3fn),
        "nan": lambda: torch.full_like(tensor, float("nan")),
        "inf": lambda: torch.full_like(tensor, float("inf")),
        "1e30": lambda: torch.full_like(tensor, 1e30),
        "None": lambda: None,
        "list": lambda: tensor.tolist(),
        "number": lambda: 7,
        "text": lambda: "x",
    }
    renamed: dict[str, Callable[[], Any]] = {
        "drop": lambda: None,
        "rename": lambda: f"{key}_",
        "prefix": lambda: f"module.module.{key}",
        "layer": lambda: str(key).replace(".0.", ".99.").replace(".1.", ".1000000000.") + "",
        "nonstr": lambda: rng.choice((0, None, 1.5, ("a",), b"x")),
        "unknown": lambda: "x",
        "long": lambda: str(key) + "y" * 100_000,
        "surrogate": lambda: f"{key}\ud83d",
        "noname": lambda: "",
    }
    if rng.random() < 0.65:
        kind = rng.choice(list(forms))
        state[key] = forms[kind]()
    elif rng.random() < 0.2:
        kind = "drop10"
        for name in rng.sample(list(state), min(10, len(state) - 1)):
            del state[name]
    else:
        kind = rng.choice(list(renamed))
        value = state.pop(key)
        if kind != "drop":
            state[renamed[kind]()] = value
    return state, f"{kind} {key}"


def odd_tensor(tensor: Tensor, rng: random.Random) -> tuple[Any, str]:
    """What only `torch.save` can hold: expanded to a terabyte, quantised, sparse, without data, a module."""
    kind = rng.choice(("expand", "quant", "sparse", "meta", "parameter", "strided", "nested"))
    flat = tensor.float().flatten()
    made: dict[str, Callable[[], Any]] = {
        "expand": lambda: flat[:1].expand(10**6, 10**6)[: 10**6],
        "quant": lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        "sparse": lambda: tensor.float().to_sparse(),
        "meta": lambda: torch.empty(tensor.shape, device="meta"),
        "parameter": lambda: torch.nn.Parameter(tensor.float()),
        "strided": lambda: flat[:1].expand(tensor.shape),
        "nested": lambda: {"weight": tensor},
    }
    return made[kind](), kind


class _Runs:
    """Unpickles by a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def with_code(folder: Path, state: State, rng: random.Random) -> tuple[bytes, str]:
    """A pickle that makes the canary when it is read without care, in one of several wrappings."""
    canary = str(folder / CANARY)
    calls = {
        "system": _Runs(os.system, f"touch {canary}"),
        "open": _Runs(builtins.open, canary, "w"),
        "exec": _Runs(builtins.exec, f"open({canary!r}, 'w')"),
        "eval": _Runs(builtins.eval, f"open({canary!r}, 'w')"),
        "popen": _Runs(subprocess.Popen, ["touch", canary]),
        "mkdir": _Runs(os.mkdir, canary),
    }
    name = rng.choice(list(calls))
    call = calls[name]
    key = rng.choice(list(state))
    shape = rng.choice(("bare", "model", "value", "key", "beside"))
    content = {
        "bare": call,
        "model": {"model": call},
        "value": {"model": {**state, key: call}},
        "key": {"model": state, "epoch": call},
        "beside": [state, call],
    }[shape]
    form = rng.choice(("zip", "legacy", "pickle", "proto0"))
    buffer = io.BytesIO()
    if form in ("zip", "legacy"):
        torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
    else:
        pickle.dump(content if shape in ("bare", "model") else {"model": call}, buffer, 0 if form == "proto0" else 4)
    return buffer.getvalue(), f"code {name} {shape} {form}"


def other_forms(state: State, rng: random.Random) -> tuple[bytes, str]:
    """A file with the same ending that is no state dict."""

    def saved(content: Any, zipped: bool = True) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        return buffer.getvalue()

    def zipped(name: str, content: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        return buffer.getvalue()

    forms: dict[str, Callable[[], bytes]] = {
        "legacy": lambda: saved({"model": state}, zipped=False),
        "bare": lambda: saved(state),
        "list": lambda: saved(list(state.values())),
        "none": lambda: saved(None),
        "model none": lambda: saved({"model": None}),
        "model list": lambda: saved({"model": [1, 2]}),
        "model twice": lambda: saved({"model": {"model": state}}),
        "tensor": lambda: saved(torch.zeros(3)),
        "numbers": lambda: saved({0: torch.zeros(2), "a": 1}),
        "empty": lambda: saved({}),
        "zip": lambda: zipped("x/data.pkl", pickle.dumps({})),
        "zip bomb": lambda: zipped("archive/data.pkl", b"\x00" * (1 << 28)),
        "other zip": lambda: zipped("hello.txt", b"hello"),
        "hugepickle": lambda: b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00." + b"x" * 100,
        "deep pickle": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "stop": lambda: b".",
        "html": lambda: b"<!doctype html><html><body>404</body></html>",
        "lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n",
        "nothing": lambda: b"",
    }
    kind = rng.choice(list(forms))
    return forms[kind](), kind
