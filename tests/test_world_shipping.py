"""From packages to assets: steps that are made when what they need has changed, hashes, and cards that quote files."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("world", reason="the scripts that build the assets come with the repository alone")
from world.__main__ import retrained
from world.pictures.leakage import compare as compare_styles
from world.pictures.sources import DRAWN, NEW_STYLE, WORDS, Package, fetch
from world.shipping.base_card import base_card
from world.shipping.data_cards import clips_card, drawn_card, scenes_card
from world.shipping.figures import FOLDER, measured, stages
from world.shipping.hashes import SPLITS, compare, hashes_of, read_hashes, write_hashes
from world.shipping.recipe import steps
from world.shipping.steps import Step, build

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "assets"
ORDER = ("pictures", "texts", "stages", "tasks", "measures", "shipping")  # a folder imports those before it alone
NEAR = {"concepts": 3, "seen": 2, "styles": {"noto": {"pre_trained": 2}, "twemoji": {"pre_trained": 0}}}


def test_folders_import_one_way() -> None:
    for file in (ROOT / "world").glob("*/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("world."):
                imported = node.module.split(".")[1]  # type: ignore[union-attr]
                assert ORDER.index(imported) <= ORDER.index(file.parent.name), f"{file.name} imports {node.module}"


def test_a_step_is_made_again_when_what_it_needs_or_made_has_changed(tmp_path: Path) -> None:
    source, made, stamps = tmp_path / "in" / "a.txt", tmp_path / "made.txt", tmp_path / "stamps"
    source.parent.mkdir()
    source.write_text("one")
    step = Step("copy", (source.parent,), (made,), lambda: made.write_text(source.read_text()))
    assert build([step], stamps) == ["copy"]
    assert build([step], stamps) == []
    source.write_text("two")
    assert build([step], stamps) == ["copy"]
    assert made.read_text() == "two"
    made.write_text("by hand")
    assert build([step], stamps, only="another") == []
    assert build([step], stamps) == ["copy"]
    assert build([step], stamps, anew=frozenset(["copy"])) == ["copy"]
    made.unlink()
    assert build([step], stamps) == ["copy"]


def test_what_takes_hours_is_kept_and_what_was_not_made_is_an_error(tmp_path: Path) -> None:
    made = tmp_path / "weights"
    made.write_text("trained")
    slow = Step("slow", (tmp_path / "changes",), (made,), lambda: made.write_text("again"), kept=True)
    assert build([slow], tmp_path) == []
    assert build([slow], tmp_path, anew=frozenset(["slow"])) == ["slow"]
    assert made.read_text() == "again"
    with pytest.raises(FileNotFoundError, match=r"step idle did not write .*nothing"):
        build([Step("idle", (), (tmp_path / "nothing",), lambda: None)], tmp_path)


def test_a_stage_is_retrained_with_all_that_rest_on_it() -> None:
    names = [step.name for step in steps(ASSETS)]
    assert retrained(None) == frozenset()
    assert retrained("stage3") == {"stage3", "stage4", "figures"}
    assert retrained("stage1") <= set(names)
    assert names.index("stage4") < names.index("backbone") < names.index("cards") < names.index("hashes")


def test_hashes_tell_what_must_be_equal_from_what_may_differ(tmp_path: Path) -> None:
    for name in ("scenes/train.jsonl", "scenes/sprites.webp", "clips/single/1F600.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    write_hashes(tmp_path)
    kept = read_hashes(tmp_path)
    assert kept == hashes_of(tmp_path)
    write_hashes(tmp_path / "scenes", SPLITS)
    assert (tmp_path / "scenes" / SPLITS).read_text().split()[1::2] == ["sprites.webp", "train.jsonl"]
    (tmp_path / "scenes" / SPLITS).unlink()
    assert compare(kept, kept) == ([], [])
    (tmp_path / "clips/single/1F600.mp4").write_text("another encoder")
    wrong, varying = compare(kept, hashes_of(tmp_path))
    assert wrong == []
    assert varying == ["clips/single/1F600.mp4: encoded by x264: another build writes other bytes"]
    (tmp_path / "scenes/train.jsonl").write_text("another scene")
    (tmp_path / "clips/single/1F600.mp4").unlink()
    wrong, varying = compare(kept, hashes_of(tmp_path))
    assert [line.partition(":")[0] for line in wrong] == ["clips/single/1F600.mp4", "scenes/train.jsonl"]
    assert varying == []


def test_the_stages_run_as_their_logs_say() -> None:
    for stage, row in stages().items():
        assert row["settings"]["steps"] == row["step"], f"{stage}: its default is not how its weights were made"
        assert row["cpu_seconds"] > 60


def test_the_base_card_quotes_logs_and_figures(tmp_path: Path) -> None:
    fusion, _ = measured()
    card = base_card(ASSETS / "backbone", NEAR)
    for row in stages().values():
        assert f"| {row['step']} | {row['settings']['batch']} | {row['cpu_seconds'] / 60:.1f} |" in card
    for part in ("matching", "questions"):
        for kind, value in fusion["styles"]["twemoji"][part].items():
            assert f"| {value} | {fusion['styles']['fluent-3d'][part][kind]} |" in card, kind
    for file in (*FOLDER.glob("stage*.json"), *FOLDER.glob("*.log.jsonl")):
        shutil.copy(file, tmp_path)
    name = "stage4.json" if fusion["stage"] == "4" else "stage2.json"
    figures = json.loads((tmp_path / name).read_text())
    figures["styles"]["twemoji"]["questions"]["thing"] = 12.3
    (tmp_path / name).write_text(json.dumps(figures))
    assert "| is there a cat? | 12.3 |" in base_card(ASSETS / "backbone", NEAR, tmp_path)
    (tmp_path / name).unlink()
    if name == "stage2.json":
        with pytest.raises(FileNotFoundError, match=r"none of stage4.json, stage2.json"):
            base_card(ASSETS / "backbone", NEAR, tmp_path)


def test_near_pictures_are_found() -> None:
    rng = np.random.default_rng(0)
    one = {str(n): np.dstack([*np.kron(rng.integers(0, 256, (3, 8, 8)), np.ones((1, 12, 12))),
                              np.full((96, 96), 255)]).astype(np.uint8) for n in range(12)}  # fmt: skip
    noisy = {n: np.clip(p + rng.integers(-9, 10, p.shape), 0, 255).astype(np.uint8) for n, p in one.items()}
    other = dict(zip(one, list(one.values())[1:] + list(one.values())[:1], strict=True))
    same = compare_styles(one, noisy)
    assert (same["concepts"], same["near"], same["by_hash"], same["by_colours"]) == (12, 12, 100.0, 100.0)
    moved = compare_styles(one, other)
    assert (moved["near"], moved["by_hash"], moved["by_colours"]) == (12, 0.0, 0.0)
    assert moved["bits"] > 20


def test_a_package_of_another_licence_or_author_is_refused(tmp_path: Path) -> None:
    package = Package("@iconify-json/noto", "1.2.9", "Apache-2.0", "pre-training", author="Google Inc")
    folder = tmp_path / package.folder
    folder.mkdir()
    (folder / "info.json").write_text(json.dumps({"author": {"name": "Google Inc"}}))
    (folder / "package.json").write_text(json.dumps({"license": "Apache-2.0"}))
    assert fetch(package, tmp_path) == folder
    (folder / "package.json").write_text(json.dumps({"license": "CC-BY-NC-4.0"}))
    with pytest.raises(ValueError, match=r"noto 1.2.9: 'CC-BY-NC-4.0' by 'Google Inc' is not what is noted"):
        fetch(package, tmp_path)


def test_the_notice_credits_every_package() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for name, package in DRAWN.items():
        credit = {"noto": "Noto", "noto-v1": "Noto", "emojione-v1": "EmojiOne", "streamline-emojis": "Streamline"}
        assert credit.get(name, name).lower() in notice.lower()
        assert package.licence in notice
    for package in (NEW_STYLE, *WORDS):
        assert package.licence in notice
    assert NEW_STYLE.name in notice


def test_the_committed_cards_and_hashes_are_those_of_the_committed_files() -> None:
    """If this fails: `python -m world --only cards`, then `--only hashes`."""
    facts = json.loads((ASSETS / "facts.json").read_text())
    near = json.loads((ASSETS / "scenes" / "leakage.json").read_text())
    assert (ASSETS / "backbone" / "README.md").read_text() == base_card(ASSETS / "backbone", near)
    for name, of, card in (
        ("scenes", "scenes", scenes_card(ASSETS / "scenes", facts, near)),
        ("clips", "clips", clips_card(ASSETS / "clips", facts, near)),
        ("drawn", "scenes", drawn_card(ASSETS / "drawn", facts)),
    ):
        assert (ASSETS / name / "README.md").read_text() == card
        for split, counts in facts[name].items():
            lines = (ASSETS / name / f"{split}.jsonl").read_text().splitlines()
            assert len(lines) == counts[of]
            assert f"| {split} | {counts[of]} |" in card
    assert compare(read_hashes(ASSETS), hashes_of(ASSETS)) == ([], [])
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 25e6
