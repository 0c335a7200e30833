"""Damaged pictures and clips: asked about alone, or one among sound ones."""

from __future__ import annotations

import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from fuzz_video import damaged
from PIL import Image

from fuzzing.running import Case
from fuzzing.values import flipped
from fuzzing.world import CONTAINERS, World, config

SIDES = (0, 1, 13_000, 65_535, 178_000_000, 2**31 - 1, 2**32 - 1)


def picture(world: World, rng: random.Random, folder: Path) -> Case:
    """A picture that is damaged, a bomb, no picture or no file."""
    sources = sorted(file for file in (world.folder / "shown").iterdir() if file.name not in CONTAINERS)
    source = rng.choice(sources)
    form = rng.choice(("damage", "damage", "bits", "header", "header", "bomb", "file"))
    content = source.read_bytes()
    if form == "damage":
        content, what = damaged(content, rng)
    elif form == "bits":
        content, what = flipped(content[:64], rng) + content[64:], "first bytes"
    elif form == "header":
        content, what = _claims(source.suffix, content, rng)
    elif form == "bomb":
        source, content, what = _bomb(source, rng)
    else:
        return _no_file(world, rng, folder, source.suffix)
    file = folder / f"broken{source.suffix}"
    file.write_bytes(content)
    return _shown(world, rng, folder, file, f"{source.name} {form}: {what}")


def clip(world: World, rng: random.Random, folder: Path) -> Case:
    """A clip that is damaged as in fuzz_video.py, or named as another container."""
    source = world.folder / "shown" / rng.choice([*CONTAINERS, "moving.gif", "moving.webp"])
    content, what = damaged(source.read_bytes(), rng)
    suffix = source.suffix
    if rng.random() < 0.15:
        suffix = rng.choice((".mp4", ".avi", ".mkv", ".webm", ".gif", ".f4v", ".asf", ".MP4", ""))
        what += f" as {suffix}"
    file = folder / f"broken{suffix}"
    file.write_bytes(content)
    return _shown(world, rng, folder, file, f"{source.name}: {what}", frames=rng.choice((1, 2, 8)))


def _shown(world: World, rng: random.Random, folder: Path, file: Path, what: str, frames: int = 1) -> Case:
    """Ask about it, write its caption, or measure and train with it among sound pictures, skipping what fails."""
    way = rng.choice(("ask", "caption", "evaluate", "evaluate skip", "evaluate skip", "train skip"))
    if way == "ask":
        arguments = ["ask", str(file), "what square?", "--adapter", str(world.adapter("vqa")), "--frames", str(frames)]
        return Case(f"{way} {what}", arguments, (file.name,))
    if way == "caption":
        arguments = ["caption", str(file), "--adapter", str(world.adapter("caption")), "--frames", str(frames)]
        return Case(f"{way} {what}", arguments, (file.name,))
    verb, _, skip = way.partition(" ")
    field = "video" if frames > 1 else "image"
    sound = [{field: str(world.pictures / f"{name}.png"), "caption": f"a {name} square"} for name in ("red", "blue")]
    rows = [sound[0], {field: str(file), "caption": "a broken square"}, sound[1]]
    annotations = folder / "rows.json"
    annotations.write_text(json.dumps(rows))
    data: dict[str, Any] = {"train" if verb == "train" else "test": str(annotations), "frames": frames}
    data["on_error"] = skip or "raise"
    values = config(world, "retrieval", str(folder / "run"), **data)
    values["train"]["batch_size"] = 2
    run = folder / "run.yaml"
    run.write_text(yaml.safe_dump(values))
    return Case(f"{way} {what}", [verb, str(run)], (file.name,), passes=bool(skip))


def _claims(suffix: str, content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A header that claims another size."""
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    broken = bytearray(content)
    if suffix == ".png":
        data = struct.pack(">II", width, height) + bytes(broken[24:29])
        broken[16:33] = data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
    elif suffix == ".gif":
        broken[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
        at = broken.find(b"\x2c")
        if rng.random() < 0.5 and 0 < at < len(broken) - 9:
            broken[at + 5 : at + 9] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    elif suffix == ".bmp":
        broken[18:26] = struct.pack("<ii", min(width, 2**31 - 1), min(height, 2**31 - 1))
    elif suffix == ".jpg":
        at = broken.find(b"\xff\xc0")
        broken[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif suffix == ".ppm":
        broken = bytearray(b"P6 %d %d 255\n" % (width, height)) + broken[15:]
    else:
        for _ in range(4):
            broken[rng.randrange(4, 40)] = rng.choice((0, 0xFF, 0x7F, 0x80))
    return bytes(broken), f"{width} x {height}"


def _bomb(source: Path, rng: random.Random) -> tuple[Path, bytes, str]:
    """A small file that is large once it is unpacked."""
    import io

    side = rng.choice((4_000, 9_000, 13_000))
    kind = rng.choice(("bits.png", "grey.png", "frames.gif", "large.gif", "text.png", "grey.jpg"))
    buffer = io.BytesIO()
    if kind in ("bits.png", "large.gif", "grey.png", "grey.jpg"):
        mode = "1" if kind == "bits.png" else "L"
        Image.new(mode, (side, side)).save(buffer, "JPEG" if kind.endswith("jpg") else kind[-3:].upper())
    elif kind == "frames.gif":
        first = Image.new("L", (64, 64))
        rest = [Image.new("L", (64, 64), number % 255) for number in range(side // 4)]
        first.save(buffer, "GIF", save_all=True, append_images=rest, duration=1)
    else:
        small = source.parent / "picture.png"
        content = small.read_bytes()
        data = b"Comment\x00\x00" + zlib.compress(b"\x00" * (1 << 26))
        chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
        buffer.write(content[:33] + chunk + content[33:])
    return Path(kind), buffer.getvalue(), f"{kind} {side}"


def _no_file(world: World, rng: random.Random, folder: Path, suffix: str) -> Case:
    """A path with no picture at it."""
    kind = rng.choice(("pipe", "folder", "loop", "empty", "text", "long", "absent", "zero", "svg", "link"))
    file = folder / f"broken{suffix}"
    made: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(file), "folder": file.mkdir, "loop": lambda: file.symlink_to(file),
        "empty": file.touch, "text": lambda: file.write_text("a picture"), "zero": lambda: file.symlink_to("/dev/zero"),
        "svg": lambda: file.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9e9" height="9e9"/>'),
        "link": lambda: file.symlink_to("/proc/self/mem"), "absent": lambda: None, "long": lambda: None,
    }  # fmt: skip
    made[kind]()
    if kind == "long":
        file = folder / ("broken" + "x" * rng.choice((300, 100_000)) + suffix)
        case = _shown(world, rng, folder, file, f"{kind}")
        return Case(case.what, case.arguments, ("xxx",), case.passes)
    return _shown(world, rng, folder, file, f"{suffix} {kind}")
