"""Only a family's own folder knows where its towers, heads and tokens are; nothing else has to name the family."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from uniadapter.app.cli import main
from uniadapter.model.families import CAPABILITIES, families, support_matrix

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "uniadapter"
MODEL = PACKAGE / "model"
FAMILIES = sorted(families())
# Parts of transformers' models and of their configs, and what only a family may say of pixels.
INSIDES = re.compile(
    r"(vision|text|qformer)_(model|encoder|decoder|config|proj|projection)|visual_projection|itm_head|qformer|logit_bias"
    r"|(cls|bos|sep|eos|pad|dec|enc)_token_id|IMAGE_(MEAN|STD)"
)
CLASSES = re.compile(r"(Blip|CLIP|Siglip|BridgeTower)\w*(Model|For[A-Z]\w+|Config)$")
ALLOWED = {
    # The names that the losses' numbers have, whichever family says where they are.
    "tasks/retrieval.py": {"logit_bias"},
}


def outside() -> Iterator[Path]:
    """Files of the package that stand in no family's folder."""
    folders = [MODEL / name for name in FAMILIES] + [MODEL / "dual"]
    for file in sorted(PACKAGE.rglob("*.py")):
        if not any(folder in file.parents for folder in folders):
            yield file


def code_names(tree: ast.AST) -> Iterator[str]:
    """Attributes, names, and the strings that are not docstrings."""
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value
        elif isinstance(node, (ast.ImportFrom, ast.Import)):
            yield getattr(node, "module", None) or ""
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("file", list(outside()), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_file_outside_a_family_knows_its_insides(file: Path) -> None:
    name = file.relative_to(PACKAGE).as_posix()
    allowed = ALLOWED.get(name, set())
    for found in code_names(ast.parse(file.read_text(encoding="utf-8"))):
        inside = INSIDES.search(found)
        assert inside is None or inside.group(0) in allowed, f"{name}: {found}"
        assert not found.startswith("transformers.models."), f"{name}: {found}"
        assert not re.match(r"(Blip|CLIP|Siglip|BridgeTower)[A-Z0-9]?\w*(Model|For\w+|Config)$", found), (
            f"{name}: {found}"
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outside_a_family_imports_it(family: str) -> None:
    """But for BLIP's converter of the authors' own files, which is a command of its own."""
    wanted = f"uniadapter.model.{family}"
    for file in outside():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                if module == "uniadapter.model.blip.converting" and file.name == "converting.py":
                    continue
                assert not f"{module}.".startswith(f"{wanted}."), f"{file}: {module}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_capability_is_covered_by_a_test_that_exists(family: str) -> None:
    said = families()[family]
    assert said.covered, "a family that can do nothing"
    for capability, test in said.covered.items():
        assert capability in CAPABILITIES
        file, _, function = test.partition("::")
        assert (ROOT / file).is_file(), test
        if function:
            assert re.search(rf"def {function}\b", (ROOT / file).read_text(encoding="utf-8")), test
    for capability in CAPABILITIES:
        assert capability in said.covered or capability in said.notes, f"{capability}: neither shown nor explained"


def test_the_documented_table_is_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0
    assert capsys.readouterr().out == support_matrix()
    assert main(["families", "--tests"]) == 0
    table = capsys.readouterr().out
    assert table.startswith(support_matrix())
    for family in families().values():
        assert all(f"`{test}`" in table for test in family.covered.values())
    assert table in (ROOT / "docs" / "families.md").read_text(encoding="utf-8"), (
        "uniadapter families --tests > the table there"
    )


def test_families_are_listed_without_torch() -> None:
    code = "import sys; from uniadapter.app.cli import main; main(['families']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_families_can_be_taken_away(tmp_path: Path) -> None:
    """Since they cost no line outside their folders: all else is imported, and the table is shorter.

    BLIP stays: `uniadapter convert` reads its authors' files.
    """
    copy = tmp_path / "uniadapter"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in [*FAMILIES, "dual"]:
        if name != "blip":
            shutil.rmtree(copy / "model" / name)
    modules = [".".join(file.relative_to(tmp_path).with_suffix("").parts) for file in sorted(copy.rglob("*.py"))]
    code = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path)!r})
for name in {[name.removesuffix(".__init__") for name in modules if "__main__" not in name]!r}:
    importlib.import_module(name)
from uniadapter.model.families import families
assert list(families()) == ["blip"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


def test_rooms_import_one_way() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import rooms
    finally:
        sys.path.pop(0)
    graph = rooms.arrows()
    assert rooms.circles(graph) == []
    assert rooms.circles(rooms.files()) == [], "of files"
    assert max(rooms.floors(graph).values()) <= 10
