"""The canvases that the embedded base is pre-trained on: what is said to lie on a patch does lie there."""

from __future__ import annotations

import json
import random
from dataclasses import astuple
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("world", reason="the scripts that build the assets come with the repository alone")
from world.pictures.canvas import Painter, arrange
from world.pictures.concepts import (
    NOVEL,
    TWINS,
    WorldConcept,
    check_distinct,
    difference_hash,
    is_novel,
    read_concepts,
    twins,
)
from world.pictures.emoji import family_of
from world.pictures.grounds import SIZE
from world.pictures.sources import HELD_OUT, NEW
from world.pictures.sprites import STILL, TILE, Jitter, make_sprites
from world.stages.vision import WIDTH, build_vision, encode, prime

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)])


def pictures() -> torch.Tensor:
    """Three full squares, one a concept, premultiplied [3, 4, 48, 48]."""
    out = torch.full((3, 4, TILE, TILE), 255, dtype=torch.uint8)
    out[:, :3] = torch.from_numpy(COLOURS).to(torch.uint8)[:, :, None, None]
    return out


def painter(jitter: Jitter, seed: int = 0) -> Painter:
    ground = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    return Painter(make_sprites(pictures(), np.arange(3), 3, 2, jitter, seed), ground, 16)


def test_a_patch_belongs_to_what_covers_most_of_it() -> None:
    rng = random.Random(0)
    canvases = painter(STILL)([arrange([0, 1, 2], rng) for _ in range(20)], rng)
    blocks = canvases.pixels.reshape(20, 6, 16, 6, 16, 3)
    for row, column, patch in np.ndindex(20, 6, 6):
        block = blocks[row, column, :, patch].reshape(-1, 3)
        shares = [(block.argmax(1)[block.max(1) > 128] == concept).sum() / len(block) for concept in range(3)]
        owner = canvases.owner[row, 6 * column + patch]
        if max(shares) > 0.35:
            assert owner == int(np.argmax(shares))
        if max(shares) < 0.25:
            assert owner == -1


def test_things_lie_apart_and_whole_on_the_canvas() -> None:
    rng = random.Random(1)
    for _ in range(200):
        things = arrange(rng.sample(range(3), rng.randint(2, 3)), rng)
        for number, (_, x, y) in enumerate(things):
            assert 18 <= x <= 78
            assert 18 <= y <= 78
            assert all(max(abs(x - u), abs(y - v)) >= 38 for _, u, v in things[:number])


def test_variants_are_a_function_of_the_seed_and_differ() -> None:
    one, same, other = (painter(Jitter(), seed).sprites.tiles for seed in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()
    assert (one[:, 0] != one[:, 1]).any()
    assert set(astuple(STILL)) == {0.0}


def test_the_concepts_are_few_distinct_and_some_kept_out() -> None:
    concepts = read_concepts()
    assert 150 <= len(concepts) <= 250
    assert len({c.code for c in concepts}) == len({c.name for c in concepts}) == len(concepts)
    assert [c.novel for c in concepts] == [is_novel(c.code) for c in concepts]
    assert 0.04 < sum(c.novel for c in concepts) / len(concepts) < 2 * NOVEL
    assert len({family_of(c.code, "") for c in concepts}) == len(concepts)


def test_concepts_of_one_family_are_refused() -> None:
    one, other = (WorldConcept(code, name, "person", False) for code, name in (("1F57A", "he"), ("1F483", "she")))
    with pytest.raises(ValueError, match=r"of one family of emoji: 1F57A; keep one of each"):
        check_distinct([one, other])


def test_drawings_that_look_alike_are_found() -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 256, (96, 96, 4), dtype=np.uint8) for _ in range(2)]
    alike = np.clip(drawn[0] + rng.integers(0, 3, (96, 96, 4)), 0, 255).astype(np.uint8)
    pictures = {(style, code): p for style in (NEW, HELD_OUT) for code, p in zip("abc", [*drawn, alike], strict=True)}
    found = twins(["a", "b", "c"], pictures)
    assert {(one, two, style) for one, two, style, _ in found} == {("a", "c", NEW), ("a", "c", HELD_OUT)}
    assert all(apart < TWINS for *_, apart in found)


def test_no_two_concepts_look_alike_in_the_pictures_that_ship() -> None:
    """The build compares the drawings themselves; an atlas in WebP at 64 pixels moves a hash by a bit or two."""
    folder = Path(__file__).resolve().parents[1] / "assets" / "scenes"
    listed = json.loads((folder / "sprites.json").read_text())
    atlas, cell = np.asarray(Image.open(folder / "sprites.webp").convert("RGBA")), listed["cell"]
    hashes = {}
    for code, row in listed["sprites"].items():
        down, across = (cell * number for number in divmod(row["cell"], listed["columns"]))
        hashes[code] = difference_hash(atlas[down : down + cell, across : across + cell].copy())
    known = {concept.code: concept.novel for concept in read_concepts()}
    assert {code: row["novel"] for code, row in listed["sprites"].items()}.items() <= known.items()
    assert min((hashes[a] ^ hashes[b]).bit_count() for a, b in combinations(hashes, 2)) >= TWINS - 2


def test_a_picture_hashes_to_itself_and_far_from_its_mirror() -> None:
    ramp = np.zeros((96, 96, 4), np.uint8)
    ramp[..., :3] = np.linspace(0, 255, 96, dtype=np.uint8)[None, :, None]
    ramp[..., 3] = 255
    assert difference_hash(ramp) == 2**64 - 1
    assert difference_hash(ramp[:, ::-1].copy()) == 0


def test_some_patches_encode_as_they_do_among_themselves() -> None:
    """Only the kept patches are seen: encoding all in another order gives the same states."""
    torch.manual_seed(0)
    model = build_vision(16).eval()
    pixels = torch.randn(4, 3, SIZE, SIZE)
    prime(model, pixels)
    order = torch.stack([torch.randperm(36) for _ in range(4)])
    with torch.no_grad():
        whole, turned = encode(model, pixels), encode(model, pixels, order)
    assert whole.shape == (4, 37, WIDTH)
    torch.testing.assert_close(turned[:, 0], whole[:, 0], atol=1e-4, rtol=1e-4)
    rows = order.unsqueeze(-1).expand(-1, -1, WIDTH)
    torch.testing.assert_close(turned[:, 1:], whole[:, 1:].gather(1, rows), atol=1e-4, rtol=1e-4)
