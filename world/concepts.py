"""Concepts: what an emoji is called, which family it is in, which split the family is in."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SHORTCODE_SETS = ("cldr", "emojibase", "github", "iamcal", "joypixels")
FLAG_GROUP = "flags"
# Look-alikes that differ by a digit, a letter or a clock hand: not told apart at 40 pixels.
NOT_IN_SCENES = {"keycap", "alphanum"}
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
class Concept:
    """One un-toned emoji with the words people gave it."""

    hexcode: str
    label: str
    group: str
    subgroup: str
    family: str
    split: str = ""
    names: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)


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


def unit_hash(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(family: str, seed: int = 0) -> str:
    """``novel`` (10%, nowhere in pre-training) or ``train`` / ``val`` / ``test`` of the scenes."""
    if unit_hash(seed, "novel:" + family) < 0.10:
        return "novel"
    place = unit_hash(seed, "scenes:" + family)
    return "train" if place < 0.65 else "val" if place < 0.75 else "test"


def in_scenes(concept: Concept) -> bool:
    """Whether a concept may be drawn in scenes: one base picture a family, no flags, no text."""
    return concept.group != FLAG_GROUP and concept.subgroup not in NOT_IN_SCENES and concept.family == concept.hexcode


def unique(phrases: Iterable[str]) -> list[str]:
    """Distinct, in order."""
    return list(dict.fromkeys(phrases))


def read_concepts(emojibase: Path, cldr: Path, cldr_derived: Path, emojilib: Path, seed: int = 0) -> list[Concept]:
    """Every un-toned emoji with names and keywords from all sources."""
    data = json.loads((emojibase / "en/data.json").read_text())
    groups = json.loads((emojibase / "meta/groups.json").read_text())
    codes = {name: json.loads((emojibase / f"en/shortcodes/{name}.json").read_text()) for name in SHORTCODE_SETS}
    annotations: dict[str, dict[str, list[str]]] = {}
    for folder, top in ((cldr, "annotations"), (cldr_derived, "annotationsDerived")):
        text = (folder / top / "en/annotations.json").read_text()
        annotations |= json.loads(text)[top]["annotations"]
    lib: dict[str, list[str]] = json.loads((emojilib / "dist/emoji-en-US.json").read_text())

    concepts: list[Concept] = []
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
            found = table.get(row["hexcode"]) or table.get(hexcode) or []
            names += [clean_phrase(n) for n in ([found] if isinstance(found, str) else found)]
        names += [clean_phrase(w) for w in words[:1]]
        keywords = [*row.get("tags", []), *note.get("default", []), *words]
        label = names[0]
        if group == FLAG_GROUP and label.startswith("flag "):
            label = "flag of " + label[5:]
            names[0] = label
        family = family_of(hexcode, subgroup)
        name_list = unique(n for n in names if n == label or is_word_like(n))
        keyword_list = unique(k for k in map(clean_phrase, keywords) if is_word_like(k))
        concepts.append(
            Concept(
                hexcode=hexcode,
                label=label,
                group=group,
                subgroup=subgroup,
                family=family,
                split=split_of(family, seed),
                names=name_list,
                keywords=[k for k in keyword_list if k not in name_list],
            )
        )
    return concepts


def phrase_counts(concepts: list[Concept]) -> Counter[str]:
    """In how many concepts a phrase occurs, as a name or as a keyword."""
    return Counter(p for c in concepts for p in {*c.names, *c.keywords})


def unambiguous_names(concept: Concept, counts: Counter[str], rare: int = 1) -> list[str]:
    """Names by which a concept can be told in a scene.

    A name is kept if no other concept has it at all; a keyword if at most ``rare`` concepts do.
    The label is always unambiguous. Strings with digits are left out: they read badly.
    """
    names = [n for n in concept.names if counts[n] == 1 and not re.search(r"\d", n)]
    keys = [k for k in concept.keywords if counts[k] <= rare and not re.search(r"\d", k)]
    return unique([concept.label, *names, *keys])
