"""Which families of models there are, and what each can do; known without torch.

A family is a folder beside this file whose `__init__.py` says `FAMILY = Family(...)`. Nothing else has to name it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from uniadapter.files.messages import names_like

# What a family may be able to do, in the order of the table.
CAPABILITIES = {
    "retrieval": "retrieval",
    "video": "video",
    "rerank": "rerank",
    "vqa": "VQA",
    "caption": "captions",
    "shared": "shared down-projection",
    "key_value": "key/value adapters",
    "merging": "merging",
}


@dataclass(frozen=True)
class Family:
    """A family of backbones.

    Args:
        name: of its folder.
        title: for people.
        model_types: as `config.json` calls its models.
        classes: from task, "retrieval", "vqa" or "caption", to the class of transformers.
        backbone: "module:class" of its `Backbone`.
        loader: "module:class" of its `BaseLoader`.
        fuses: it has a fused encoder, so matching and rerank.
        packs: texts are computed without padding.
        originals: it is the family whose authors' `.pth` files are read.
        patch: where `config.json` says how many pixels wide a patch is, key below key.
        positions: where it says how many tokens a text may have.
        vocabulary: where it says how many tokens there are.
        covered: from what it can do, a key of `CAPABILITIES`, to the test that shows it, "tests/file.py::test".
        notes: from what it cannot do, or does in part, to why.
    """

    name: str
    title: str
    model_types: tuple[str, ...]
    classes: Mapping[str, str]
    backbone: str
    loader: str
    patch: tuple[str, ...]
    positions: tuple[str, ...]
    vocabulary: tuple[str, ...]
    fuses: bool = False
    packs: bool = False
    originals: bool = False
    covered: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def part(self, name: str) -> Any:
        """The class that `backbone` or `loader` names; imports torch."""
        module, _, attribute = str(getattr(self, name)).partition(":")
        return getattr(import_module(module), attribute)

    @staticmethod
    def size(described: Any, keys: tuple[str, ...]) -> int | None:
        """A size from the content of a `config.json`; None where there is none such, or no whole number."""
        for key in keys:
            described = described.get(key) if isinstance(described, dict) else None
        return described if isinstance(described, int) and not isinstance(described, bool) and described > 0 else None


@cache
def families() -> dict[str, Family]:
    """Every family by name."""
    here = Path(__file__).parent
    found = {}
    for info in pkgutil.iter_modules([str(here)]):
        if info.ispkg:
            family = getattr(import_module(f"{__package__}.{info.name}"), "FAMILY", None)
            if isinstance(family, Family):
                found[family.name] = family
    return found


def family_of(model_type: object) -> Family:
    """The family of a model type, as `config.json` has it.

    Raises:
        LookupError: there is none; names those there are.
    """
    known = {kind: family for family in families().values() for kind in family.model_types}
    if isinstance(model_type, str) and model_type in known:
        return known[model_type]
    raise LookupError(f"no family of models has the type {str(model_type)[:40]!r}{names_like(str(model_type), known)}")


def support_matrix() -> str:
    """What each family can do, as a table in Markdown; below it, why something is missing or partial."""
    head = ["", *CAPABILITIES.values()]
    rows = [head, ["---", *[":-:"] * len(CAPABILITIES)]]
    notes: list[str] = []
    for family in families().values():
        marks = []
        for name in CAPABILITIES:
            mark = "✓" if name in family.covered else "-"
            if name in family.notes:
                notes.append(f"{len(notes) + 1}. {family.title}, {CAPABILITIES[name]}: {family.notes[name]}")
                mark += f" ({len(notes)})"
            marks.append(mark)
        rows.append([family.title, *marks])
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + ["", *notes]) + "\n"
