"""What kind of thing an emoji shows: ``python -m world.kinds`` writes ``assets/scenes/kinds.json``.

From the groups and subgroups of emojibase-data; what belongs to none of these has no kind, and nothing is asked of it.
"""

from __future__ import annotations

import json
from pathlib import Path

from world.concepts import Concept
from world.gather import CACHE

ASSETS = Path(__file__).parents[1] / "assets" / "scenes"
# Beginning of a subgroup to kind; hands come before "person" does, whose group they share.
KINDS = {
    "face-": "face", "cat-face": "face", "monkey-face": "face", "heart": "heart", "hand": "hand", "person-": "person",
    "animal-": "animal", "plant-": "plant", "food-": "food", "drink": "drink", "place-building": "building",
    "place-religious": "building", "transport-ground": "vehicle", "transport-water": "vehicle",
    "transport-air": "vehicle", "sky-weather": "weather", "clothing": "clothing", "musical-instrument": "instrument",
    "arrow": "sign", "av-symbol": "sign", "warning": "sign", "transport-sign": "sign", "geometric": "sign",
    "zodiac": "sign", "religion": "sign",
}  # fmt: skip
ALL_KINDS = sorted(set(KINDS.values()))


def kind_of(concept: Concept) -> str:
    """Its kind; "" where it has none."""
    return next((kind for start, kind in KINDS.items() if concept.subgroup.startswith(start)), "")


def main() -> None:
    """Write the kind of every emoji that has one, a line each."""
    concepts = [Concept(**row) for row in json.loads((CACHE / "concepts.json").read_text())]
    kinds = {c.hexcode: kind_of(c) for c in concepts if kind_of(c)}
    lines = ",\n".join(f"{json.dumps(code)}: {json.dumps(kind)}" for code, kind in sorted(kinds.items()))
    (ASSETS / "kinds.json").write_text(f"{{{lines}}}\n")


if __name__ == "__main__":
    main()
