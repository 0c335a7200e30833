"""The families of models that can be adapted, and what each supports; needs no torch.

A family is a sub-package of `uniadapter.model` whose `__init__.py` defines `FAMILY = Family(...)`; nothing else in the
package names it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from uniadapter.files.messages import suggestion

# What a family may support, in the order of the table, with the column titles.
CAPABILITIES = {
    "retrieval": "retrieval",
    "video": "video",
    "rerank": "rerank",
    "vqa": "VQA",
    "caption": "captions",
    "shared": "shared down-projection",
    "key_value": "key/value adapters",
    "self_attention": "self-attention adapters",
    "merging": "merging",
}


NOT_MERGED = "adapters beside a non-linearity cannot be merged into the base's matrices"  # of any family


@dataclass(frozen=True)
class Family:
    """A family of models with one architecture.

    Args:
        name: of its folder.
        title: the name that tables and messages show.
        model_types: values of `model_type` in the `config.json` of its models.
        classes: from task ("retrieval", "vqa" or "caption") to the name of the class in transformers.
        backbone: "module:class" of its `Backbone`.
        loader: "module:class" of its `BaseLoader`.
        fuses: it has a fused encoder, so that matching and reranking are possible.
        packs: texts are packed without padding.
        originals: the `.pth` files of its authors can be read, too.
        patch: path of keys in `config.json` to the side of a patch in pixels.
        positions: path of keys to the most tokens that a text may have.
        vocabulary: path of keys to the number of token ids.
        covered: from a supported key of `CAPABILITIES` to the test that shows it, "tests/file.py::test".
        notes: from a key of `CAPABILITIES` that is missing or partial to the reason.
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
        """Import the class that the field "backbone" or "loader" names; imports torch too."""
        module, _, attribute = str(getattr(self, name)).partition(":")
        return getattr(import_module(module), attribute)

    @staticmethod
    def size(described: Any, keys: tuple[str, ...]) -> int | None:
        """The size at a path of keys in the content of a `config.json`; None where no positive whole number is."""
        for key in keys:
            described = described.get(key) if isinstance(described, dict) else None
        return described if isinstance(described, int) and not isinstance(described, bool) and described > 0 else None


@cache
def families() -> dict[str, Family]:
    """All families by name."""
    here = Path(__file__).parent
    found = {}
    for info in pkgutil.iter_modules([str(here)]):
        if info.ispkg:
            family = getattr(import_module(f"{__package__}.{info.name}"), "FAMILY", None)
            if isinstance(family, Family):
                found[family.name] = family
    return found


def family_of(model_type: object) -> Family:
    """The family of a `model_type` of `config.json`.

    Raises:
        LookupError: there is none; suggests similar types.
    """
    known = {kind: family for family in families().values() for kind in family.model_types}
    if isinstance(model_type, str) and model_type in known:
        return known[model_type]
    raise LookupError(f"no family of models has the type {str(model_type)[:40]!r}{suggestion(str(model_type), known)}")


def support_matrix() -> str:
    """The table of families and capabilities in Markdown, with the notes below it."""
    head = ["", *CAPABILITIES.values()]
    rows = [head, ["---", *[":-:"] * len(CAPABILITIES)]]
    notes: dict[str, int] = {}
    for family in families().values():
        marks = []
        for name, said in CAPABILITIES.items():
            mark = "✓" if name in family.covered else "-"
            if name in family.notes:
                mark += f" ({notes.setdefault(f'{said}: {family.notes[name]}', len(notes) + 1)})"
            marks.append(mark)
        rows.append([family.title, *marks])
    listed = [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + ["", *listed]) + "\n"


def covering_tests() -> str:
    """The test behind each check mark of the table, in Markdown."""
    lines = [
        f"- {family.title}, {CAPABILITIES[name]}: `{test}`"
        for family in families().values()
        for name, test in family.covered.items()
    ]
    return "\n".join(lines) + "\n"
