"""A seeded part of benchmarks/fuzz.py: mutated inputs end in a line or a result, never otherwise."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
fuzz = pytest.importorskip("fuzz", reason="benchmarks/ is not here")

from fuzzing import running  # noqa: E402 - behind the skip
from fuzzing.running import Case, attempt  # noqa: E402
from fuzzing.values import mutated  # noqa: E402
from fuzzing.world import World, build  # noqa: E402

COUNTS = {"adapter": 6, "pth": 10, "yaml": 6, "values": 6, "annotations": 6, "pictures": 5, "clips": 2}
RED: tuple[str, ...] = ()  # kinds with faults that are known


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def world(scratch: Path) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield build(scratch / "world")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.xfail) if k in RED else k for k in COUNTS])
def test_mutated_inputs_are_refused_in_a_line_or_accepted(world: World, scratch: Path, kind: str) -> None:
    found = list(fuzz.outcomes(world, kind, 1, range(COUNTS[kind]), scratch))
    wrong = [one for one in found if one.kind in ("traceback", "hang") or one.escapes]
    assert len(found) == COUNTS[kind]
    assert not wrong, fuzz.failures({kind: found})


def _raise(_: list[str]) -> int:
    raise KeyError("x")


def _sleep(_: list[str]) -> int:
    time.sleep(60)
    return 0


def _spin(_: list[str]) -> int:
    while True:
        pass


def _write(_: list[str]) -> int:
    Path("../elsewhere.txt").write_text("x")
    return 0


def _die(_: list[str]) -> int:
    ctypes.string_at(0)
    return 0


def _take(_: list[str]) -> int:
    return len(bytearray(4 << 30))


def _refuse(arguments: list[str]) -> int:
    sys.stderr.write(f"error: {arguments[0] * 400}\n")
    return 2


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (_raise, "traceback", "KeyError: 'x'"),
        (_sleep, "hang", "more than 1 s"),
        (_spin, "hang", "more than 1 s"),
        (_die, "traceback", "the process died (-11)"),
        (_take, "traceback", "MemoryError"),
        (_write, "accepted", ""),
        (_refuse, "error", "error: aaa"),
    ],
)
def test_what_goes_wrong_is_seen(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[[list[str]], int], kind: str, text: str
) -> None:
    monkeypatch.setattr(running, "main", function)
    outcome = attempt(lambda folder: Case("a case", ["a"], ("b",)), scratch / "seen", limit=1)
    assert outcome.kind == kind
    assert outcome.text.startswith(text)
    assert outcome.what == "a case"
    assert [e.split()[0] for e in outcome.escapes] == (["open"] if function is _write else [])
    assert outcome.faults == (["long", "unnamed"] if function is _refuse else [])
    assert not (scratch / "seen").exists()


def test_code_that_an_input_runs_is_seen(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle
    import random

    from fuzzing.tensors import with_code

    def load(arguments: list[str]) -> int:
        pickle.loads(Path(arguments[0]).read_bytes())
        return 0

    def make(folder: Path) -> Case:
        made = (with_code(folder, {"a": 1}, random.Random(number)) for number in range(1000))
        content, what = next(one for one in made if one[1] == "code system bare pickle")
        (folder / "x.pth").write_bytes(content)
        return Case(what, [str(folder / "x.pth")], ())

    monkeypatch.setattr(running, "main", load)
    outcome = attempt(make, scratch / "code")
    assert "code in the input was run" in outcome.escapes
    assert any(one.startswith("os.system") for one in outcome.escapes)


def test_mutations_follow_from_the_seed_and_leave_the_original() -> None:
    import random

    sound = {"a": [1, {"b": "x"}], "c": 1.5}
    made = [ascii(mutated(sound, random.Random(number))) for number in range(60)]
    assert made == [ascii(mutated(sound, random.Random(number))) for number in range(60)]
    assert len(set(made)) > 30
    assert sound == {"a": [1, {"b": "x"}], "c": 1.5}
