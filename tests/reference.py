"""The reference numbers of the authors' code, from the folder `parity` or from $UNIADAPTER_PARITY."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

PARITY = Path(os.environ.get("UNIADAPTER_PARITY", Path(__file__).parent / "parity"))


class ParityCase:
    """One reference file: its tensors by group, and its sizes and switches."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, Tensor] = {}
        with safe_open(PARITY / f"{name}.safetensors", "pt") as file:
            meta = (file.metadata() or {}).get("meta")
            self.meta = json.loads(meta) if meta else {}
            for key in file.keys():  # noqa: SIM118 - not a dict
                self.tensors[key] = file.get_tensor(key)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix such as `weights`."""
        return {k[len(prefix) + 1 :]: v for k, v in self.tensors.items() if k.startswith(prefix + ".")}

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors


def parity_cases(kind: str) -> list[str]:
    """Names of the cases of a kind (`retrieval` or `vqa`) in the reference folder."""
    cases = json.loads((PARITY / "cases.json").read_text())
    return [name for name, meta in cases.items() if meta["kind"] == kind]
