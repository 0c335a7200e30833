"""Mutations of plain values (what JSON and YAML hold) and of the text or bytes they are written as."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

LEVELS = 10_000
DEEP = "@deep@"  # stands for ten thousand levels, which no encoder would write
SURROGATE = "\ud83d"  # half an emoji
LONG = "x" * 100_000
ALIASES = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

Path_ = tuple[str | int, ...]

REPLACEMENTS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, -0.5, 10**9, 10**12, 2**63, 2**70, -(10**12), 1e30, float("nan"), float("inf"),
    "", " ", "x", "null", SURROGATE, "\x00", LONG, "../../etc/passwd", "🙂", [], {}, [[]], [None], [1, 2], {"x": 1},
    ["x", "x"], DEEP,
)  # fmt: skip


def places(value: Any, prefix: Path_ = ()) -> list[Path_]:
    """Every place in nested lists and objects but the top."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found: list[Path_] = []
    for key in keys:
        found += [(*prefix, key), *places(value[key], (*prefix, key))]
    return found


def put(value: Any, place: Path_, new: Any) -> None:
    """Replace what stands at a place."""
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = new


def get(value: Any, place: Path_) -> Any:
    """What stands at a place."""
    for key in place:
        value = value[key]
    return value


def mutated(content: Any, rng: random.Random) -> tuple[Any, str]:
    """A copy with one value changed, wrapped, left out, doubled, renamed or exchanged, and what was done."""
    content = copy.deepcopy(content)
    found = places(content)
    if not found or rng.random() < 0.03:
        new = rng.choice(REPLACEMENTS)
        return new, f"all={brief(new)}"
    place = rng.choice(found)
    kind = rng.choice(("replace", "replace", "replace", "wrap", "object", "drop", "rename", "swap", "extra", "text"))
    old = get(content, place)
    holder = get(content, place[:-1])
    if kind == "replace":
        new = near(old, rng) if rng.random() < 0.4 else rng.choice(REPLACEMENTS)
        put(content, place, new)
        return content, f"{list(place)}={brief(new)}"
    if kind in ("wrap", "object", "text"):
        put(content, place, {"wrap": [old], "object": {"x": old}, "text": str(old)}[kind])
    elif kind == "drop":
        del holder[place[-1]]
    elif kind == "swap":
        other = rng.choice(found)
        put(content, place, copy.deepcopy(get(content, other)))
        return content, f"{list(place)} from {list(other)}"
    elif isinstance(holder, dict):
        name = {"rename": f"{place[-1]}s", "extra": f"{place[-1]}_"}[kind]
        holder[name] = holder.pop(place[-1]) if kind == "rename" else old
    else:  # of a list: the same again, ten times
        holder[place[-1] : place[-1]] = [copy.deepcopy(old) for _ in range(10)]
    return content, f"{kind} {list(place)}"


def near(old: Any, rng: random.Random) -> Any:
    """Another value of the same kind, or nearly."""
    if isinstance(old, bool):
        return int(old)
    if isinstance(old, int):
        return rng.choice((old + 0.5, float(old), -old, old * 1000, old + 1, str(old)))
    if isinstance(old, float):
        return rng.choice((-old, old * 1e10, int(old), str(old)))
    if isinstance(old, str):
        return rng.choice((old[:-1], old + SURROGATE, old * 1000, [old], old.upper(), old[: len(old) // 2] + "\n"))
    return rng.choice((None, list(old), {}, str(old)))


def as_json(content: Any, lines: bool = False) -> bytes:
    """Written as JSON, or as a line a record."""
    if lines and isinstance(content, list):
        return b"".join(as_json(one) + b"\n" for one in content)
    return json.dumps(content).replace(f'"{DEEP}"', "[" * LEVELS + "]" * LEVELS).encode()


def damaged_text(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A copy broken as text: cut, bits flipped, another encoding, a key twice, nested deep; and what was done."""
    forms: dict[str, Callable[[], bytes]] = {
        "cut": lambda: text[: rng.randrange(len(text) or 1)],
        "bits": lambda: flipped(text, rng),
        "noise": lambda: _spliced(text, rng.randbytes(rng.randrange(1, 40)), rng),
        "nul": lambda: _spliced(text, b"\x00", rng),
        "utf16": lambda: text.decode("utf-8", "replace").encode("utf-16"),
        "bom": lambda: b"\xef\xbb\xbf" + text,
        "latin": lambda: _spliced(text, b"\xe9\xff", rng),
        "twice": lambda: text + text,
        "empty": lambda: b"",
        "blank": lambda: b" \n\n ",
        "deep": lambda: b"[" * LEVELS + b"]" * LEVELS,
        "open": lambda: b"{" * LEVELS,
        "objects": lambda: b'{"a":' * LEVELS + b"1" + b"}" * LEVELS,
        "doubled": lambda: _key_twice(text, rng),
        "digits": lambda: b"1" * 5000,
        "scalar": lambda: rng.choice((b"null", b"1", b'"x"', b"[]", b"{}", b"[[]]", b"[1]", b"true", b"NaN")),
        "slice": lambda: _without_block(text, rng),
    }
    kind = rng.choice(list(forms))
    return forms[kind](), kind


def flipped(content: bytes, rng: random.Random, most: int = 6) -> bytes:
    """A copy with some bits the other way round."""
    broken = bytearray(content)
    for _ in range(1 << rng.randrange(most) if broken else 0):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def brief(value: Any) -> str:
    """A value in at most 40 characters, all of them plain."""
    return ascii(value)[:40]


def _spliced(text: bytes, new: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + new + text[at:]


def _key_twice(text: bytes, rng: random.Random) -> bytes:
    """The first key of some object again, with another value."""
    opened = [index for index, byte in enumerate(text) if byte == ord("{")]
    if not opened:
        return text
    at = rng.choice(opened) + 1
    key = text[at:].partition(b":")[0]
    return text[:at] + key + b": 7, " + text[at:]


def _without_block(text: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(text) or 1)
    return text[:start] + text[start + rng.randrange(1, 200) :]
