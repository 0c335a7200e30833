"""What emoji are called, and which of them are variants of one another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SHORTCODE_SETS = ("cldr", "emojibase", "github", "iamcal", "joypixels")
FLAG_GROUP = "flags"
TONES = {f"1F3F{x}" for x in "BCDEF"}
GENDERS = {"2640", "2642"}
# People of one description in three genders, and pairs of them: one family each.
SAME = [
    ("1F9D1", "1F468", "1F469"),
    ("1F9D2", "1F466", "1F467"),
    ("1F9D3", "1F474", "1F475"),
    ("1FAC5", "1F934", "1F478"),
    ("1FAC4", "1F930", "1FAC3"),
    ("1F385", "1F936"),
    ("1F46B", "1F46C", "1F46D"),
    ("1F57A", "1F483"),
    ("1F46A", "1F491", "1F48F"),
]
SAME_AS = {code: group[0] for group in SAME for code in group}


@dataclass
class Emoji:
    """One un-toned emoji with the names that people gave it, its label first."""

    hexcode: str
    label: str
    group: str
    subgroup: str
    family: str
    names: list[str] = field(default_factory=list)


def plain_hexcode(hexcode: str) -> str:
    """Upper case, without variation selectors: the key every source is matched by."""
    return "-".join(p for p in hexcode.upper().split("-") if p != "FE0F")


def family_of(hexcode: str, subgroup: str) -> str:
    """Conservative family key: everything that could be the same drawing with a change.

    A joined sequence belongs to its first part (a woman astronaut to "person"), so some distinct
    pictures share a family; that costs variety, never honesty.
    """
    parts = [p for p in hexcode.split("-") if p not in TONES | GENDERS | {"200D"}]
    if not parts:  # the gender signs themselves
        return hexcode
    if subgroup in {"country-flag", "subdivision-flag"}:
        return "-".join(parts)
    if subgroup == "keycap":
        return "keycap"
    number = int(parts[0], 16)
    if 0x1F550 <= number <= 0x1F567:
        return "clock-face"
    return SAME_AS.get(parts[0], parts[0])


def clean_phrase(text: str) -> str:
    """A name as words: lower case, no skin tone suffix, letters, digits and apostrophes."""
    text = text.lower().replace("_", " ").replace("-", " ").replace("\u2019", "'").replace("&", " and ")
    text = re.sub(r"[^a-z0-9' ]+", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def is_word_like(text: str) -> bool:
    """Whether a phrase reads as words, not as an emoticon or a code such as ``u7121``."""
    return (
        2 < len(text) <= 40
        and any(c in "aeiouy" for c in text)
        and not re.fullmatch(r"u?[0-9a-f]*[0-9][0-9a-f]*", text)
        and not re.search(r"[a-z][0-9]+$", text)
    )


def unique(phrases: Iterable[str]) -> list[str]:
    """Distinct, in order."""
    return list(dict.fromkeys(phrases))


def read_emoji(emojibase: Path, cldr: Path, cldr_derived: Path, emojilib: Path) -> list[Emoji]:
    """Every un-toned emoji with its names, from the folders of the unpacked packages."""
    data = json.loads((emojibase / "en/data.json").read_text())
    groups = json.loads((emojibase / "meta/groups.json").read_text())
    codes = {name: json.loads((emojibase / f"en/shortcodes/{name}.json").read_text()) for name in SHORTCODE_SETS}
    annotations: dict[str, dict[str, list[str]]] = {}
    for folder, top in ((cldr, "annotations"), (cldr_derived, "annotationsDerived")):
        text = (folder / top / "en/annotations.json").read_text()
        annotations |= json.loads(text)[top]["annotations"]
    lib: dict[str, list[str]] = json.loads((emojilib / "dist/emoji-en-US.json").read_text())

    found: list[Emoji] = []
    for row in data:
        if "group" not in row or "subgroup" not in row:
            continue  # regional indicators
        group = groups["groups"][str(row["group"])]
        if group == "component":
            continue
        subgroup = groups["subgroups"][str(row["subgroup"])]
        hexcode, emoji = plain_hexcode(row["hexcode"]), row["emoji"]
        bare = emoji.replace("\ufe0f", "")
        note = annotations.get(emoji) or annotations.get(bare) or {}
        words = lib.get(emoji) or lib.get(bare) or []
        names = [clean_phrase(row["label"])]
        names += [clean_phrase(n) for n in note.get("tts", [])]
        for table in codes.values():
            listed = table.get(row["hexcode"]) or table.get(hexcode) or []
            names += [clean_phrase(n) for n in ([listed] if isinstance(listed, str) else listed)]
        names += [clean_phrase(w) for w in words[:1]]
        label = names[0]
        if group == FLAG_GROUP and label.startswith("flag "):
            label = names[0] = "flag of " + label[5:]
        kept = unique(n for n in names if n == label or is_word_like(n))
        found.append(Emoji(hexcode, label, group, subgroup, family_of(hexcode, subgroup), kept))
    return found
