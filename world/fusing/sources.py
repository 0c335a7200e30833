"""The drawn styles, one npm package each, and which of them is kept for validation."""

from __future__ import annotations

from pathlib import Path

from world.sources import CLDR, CLDR_DERIVED, EMOJIBASE, EMOJILIB, NEW_STYLE, Package
from world.sources import DRAWN as FIRST_STYLES

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "world"
DRAWN: dict[str, Package] = FIRST_STYLES | {
    style: Package(f"@iconify-json/{style}", version, licence, "pictures, pre-training only")
    for style, version, licence in [
        ("emojione-v1", "1.2.3", "CC-BY-SA-4.0"),
        ("streamline-emojis", "1.2.4", "CC-BY-4.0"),
    ]
}
NEW = "fluent-3d"  # the style of the tasks, never seen in pre-training
HELD_OUT = "twemoji"  # a drawn style that no pre-training step sees: what the base is measured on
PRETRAINED = tuple(style for style in DRAWN if style != HELD_OUT)
WORDS = (EMOJIBASE, CLDR, CLDR_DERIVED, EMOJILIB)
ALL = (*DRAWN.values(), NEW_STYLE, *WORDS)
