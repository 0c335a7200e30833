"""Configs and command lines: nothing that is not right is taken, nothing hangs, and every error is one short line."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from uniadapter.app.cli import COMMANDS, main
from uniadapter.app.parsing import all_settings, parse_run, read_config
from uniadapter.config import RunConfig
from uniadapter.errors import UsageError
from uniadapter.files.messages import MAX_MESSAGE

SETTINGS = list(all_settings())
OPTIONAL = {
    "model.image_size",
    "model.adapter.frame_temperature",
    "data.train",
    "data.val",
    "data.test",
    "data.captions",
    "data.answer_list",
    "data.root",
    "data.cache",
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line in which a command line is refused, at once."""
    started = time.process_time()
    assert main(list(arguments)) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert len(error) <= MAX_MESSAGE + len("error: \n")
    assert "Traceback" not in out + error
    assert time.process_time() - started < 3
    return error


def nested(key: str, value: Any) -> Any:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("key", [one.key for one in SETTINGS])
def test_null_stands_only_where_a_field_can_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(nested(key, None)))
    if key in OPTIONAL:
        assert read_config(file)
        return
    error = refused(capsys, "train", str(file))
    assert str(file) in error
    assert key in error
    if not next(one for one in SETTINGS if one.key == key).is_text:
        assert key in refused(capsys, "train", f"--{key}", "null")


@pytest.mark.parametrize("wrong", ["[]", "{a: 1}", "!!binary aGk=", "2001-01-01", ".nan", "1.5e400", "''", "!!set {a}"])
def test_values_of_another_kind_are_refused_for_every_key(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "run.yaml"
    for setting in SETTINGS:
        *outer, last = setting.key.split(".")
        file.write_text(
            "".join(f"{'  ' * n}{part}:\n" for n, part in enumerate(outer)) + f"{'  ' * len(outer)}{last}: {wrong}\n"
        )
        if wrong == "[]" and setting.key == "train.trackers":
            assert read_config(file).train.trackers == []
            continue
        taken = wrong in ("2001-01-01", "''") and setting.kind in (str, str | None)
        if taken and (wrong != "''" or setting.key == "model.prompt"):
            assert read_config(file)  # a text, and so are dates and nothing at all
            continue
        with pytest.raises(UsageError) as caught:
            read_config(file)
        assert len(str(caught.value)) <= MAX_MESSAGE


ODD = {
    "empty": b"",
    "no keys": b"[1, 2]",
    "binary": bytes(range(256)),
    "null byte": b"task: \x00",
    "UTF-16": "task: vqa".encode("utf-16"),
    "deep": b"{" * 90_000,
    "deep blocks": b"".join(b" " * level + b"a:\n" for level in range(400)),
    "deep lists of blocks": b"- " * 40_000,
    "deep lists": b"a: " + b"[" * 5_000 + b"]" * 5_000,
    "bomb": b"a: &a [x]\nb: &b [" + b",".join([b"*a"] * 9) + b"]\nc: &c [" + b",".join([b"*b"] * 9) + b"]",
    "large bomb": b"a: &a [" + b"x," * 9 + b"]\n" + b"".join(
        b"%c: &%c [" % (n + 1, n + 1) + b"*%c," % n * 9 + b"]\n" for n in range(97, 110)),
    "merging bomb": b"a: &a {k: v}\n" + b"".join(
        b"%c: &%c {<<: [" % (n + 1, n + 1) + b"*%c," % n * 9 + b"]}\n" for n in range(97, 110)),
    "holds itself": b"train: &a\n  lr: *a\n",
    "twice": b"train:\n  lr: 1.0e-3\n  lr: 1.0e-5\n",
    "digits": b"train: {seed: " + b"9" * 10_000 + b"}",
    "another key": b"model:\n  bse: x\n",
    "long key": b"k" * 100_000 + b": 1\n",
    "long value": b"task: " + b"v" * 100_000 + b"\n",
    "python": b"task: !!python/object/apply:os.system ['true']\n",
    "keys of all kinds": b"1: 2\nnull: 3\n[a]: 4\n",
    "large": b"# x\n" * 30_000,
}  # fmt: skip


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_odd_files_are_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    for command in ("train", "evaluate"):
        assert str(file) in refused(capsys, command, str(file))


def test_a_file_cut_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    whole = Path("configs/vqa.yaml").read_bytes()
    file = tmp_path / "run.yaml"
    for end in range(0, len(whole), 29):
        file.write_bytes(whole[:end])
        with suppress(UsageError):
            assert isinstance(read_config(file), RunConfig)


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["train", "--train.lr", "0"], "train.lr is 0"),
        (["train", "--train.lr", "-1e-5"], "train.lr is -1e-05"),
        (["train", "--train.lr", "1e30"], "train.lr"),
        (["train", "--train.lr", "fast"], "train.lr is 'fast': it must be a number"),
        (["train", "--train.lr=nan"], "train.lr"),
        (["train", "--train.epochs", "1.5"], "train.epochs"),
        (["train", "--train.epochs", "true"], "train.epochs"),
        (["train", "--model.adapter.bottleneck", "0"], "model.adapter.bottleneck is 0"),
        (["train", "--model.adapter", "{bottlneck: 8}"], "did you mean model.adapter.bottleneck?"),
        (["train", "--model", "3"], "--model is 3"),
        (["train", "--data.scale", "[0.5, 0.1]"], "data.scale"),
        (["train", "--data.extra_tests", "{train: x.json}"], "'train'"),
        (["train", "--data.extra_tests", "{" * 9_000], "data.extra_tests"),
        (["train", "--data.extra_tests", "[a, b]"], "data.extra_tests"),
        (["train", "--data.extra_tests.test", "x.json"], "'test'"),
        (["train", "--data.annotations", "{tset: x.json}"], "did you mean test?"),
        (["train", "--output", ""], "output is ''"),
        (["train", "--output", "a\0b"], "null byte"),
        (["train", "--train.lrr", "1"], "did you mean --train.lr?"),
        (["train", "--outp", "x"], "did you mean --output?"),
        (["train", "--res"], "there is no option --res"),
        (["train", "--train.lr"], "--train.lr has no value"),
        (["train", "--train.lr", "--resume"], "--train.lr has no value"),
        (["train", "scense"], "did you mean scenes?"),
        (["train", "x" * 100_000], "no such file"),
        (["train", "--config", "nowhere"], "nowhere"),
        (["train", "--resume", "scense"], "did you mean scenes?"),
        (["train", "scenes", "clips"], "one config is read"),
        (["evaluate", "--adaptor", "x"], "did you mean --adapter?"),
        (["evaluate", "scenes", "--model.base", "x" * 100_000], "model.base"),
        (["demo", "--seed", "-1"], "--seed"),
        (["demo", "--seed", str(2**70)], "--seed"),
        (["demo", "scense"], "did you mean scenes?"),
        (["ask", "x.png", "what?", "--frames", "0"], "--frames"),
        (["ask", "x.png"], "questions"),
        (["ask", "https://x.y/z.png", "what?"], "is a URL: download it"),
        (["train", "--data.captions", "/no/file.json"], "data.captions is /no/file.json"),
        (["train", "--data.annotations", "{val: /no/file.json}"], "data.annotations.val is /no/file.json"),
        (["train", "--data.root", "/no/folder"], "data.root is /no/folder"),
        (["train", "pictures"], "data.train is not set"),
        (["evaluate", "pictures"], "data.test is not set"),
        (["evaluate", "pictures", "--split", "tset"], "did you mean test?"),
        (["caption", "x.png", "--frames", "100000"], "--frames"),
        (["convert", "x.pth", "out", "--kind", "bliq"], "did you mean blip?"),
        (["convert", "x.pth", "out", "--vision_heads", "-3"], "--vision_heads"),
        (["trian"], "did you mean train?"),
        (["x" * 100_000], "there is no command"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_advice(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert named in refused(capsys, *arguments)


def test_overrides_win_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("task: vqa\ntrain: {lr: 1e-3, precision: no}\ndata: {extra_tests: {a: a.json}, val: v.json}\n")
    given = ["--train.lr", "2e-3", "--train", "{lr: 3e-3, epochs: 2}", "--data.extra_tests.b", "b.json",
             "--data.val", "null", "--data.train", "null.json", "--data.flip", "no",
             "--model.prompt", "null"]  # fmt: skip
    config, chosen = parse_run("train", [str(file), *given], lambda parser: None)
    assert (config.train.lr, config.train.epochs, config.train.precision) == (3e-3, 2, "no")
    assert config.data.extra_tests == {"a": "a.json", "b": "b.json"}
    assert (config.data.val, config.data.train, config.data.flip) == (None, "null.json", False)
    assert config.model.prompt == "null"
    assert {"task", "train.lr", "train.epochs", "data.extra_tests.a", "data.val"} < chosen.stated
    assert not {"train.seed", "model.base", "output"} & chosen.stated
    config, _ = parse_run("train", ["--data.extra_tests", "{}", str(file)], lambda parser: None)  # wherever it stands
    assert config.data.extra_tests == {}


@pytest.mark.parametrize("name", [file.stem for file in Path("configs").glob("*.yaml")])
def test_a_printed_config_is_read_as_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    for command in ("train", "evaluate"):
        with pytest.raises(SystemExit) as end:
            main([command, name, "--train.seed", "7", "--print_config"])
        assert end.value.code == 0
        file = tmp_path / f"{command}.yaml"
        file.write_text(capsys.readouterr().out)
    train, evaluate = (read_config(tmp_path / f"{command}.yaml") for command in ("train", "evaluate"))
    assert train == evaluate
    assert train.train.seed == 7
    assert train.to_dict() == yaml.safe_load((tmp_path / "train.yaml").read_text())  # by YAML 1.1 too


def test_each_demo_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    from uniadapter.app.demo import DEMOS as RUN
    from uniadapter.app.model_commands import DEMOS

    assert list(DEMOS) == list(RUN)
    for task in DEMOS:
        with pytest.raises(SystemExit):
            main(["demo", task, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert "nothing else to install" in shown or "needs pip install" in shown
        assert ("minutes" in shown) == (task in ("scenes", "caption"))  # the durations that were measured
    assert "uniadapter[caption]" in DEMOS["caption"]
    assert "uniadapter[easy-vqa]" in DEMOS["easy_vqa"]


def test_an_output_that_cannot_be_is_refused_before_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file/below"):
        assert "is a file" in refused(capsys, "train", "scenes", "--output", str(output))
        assert "is a file" in refused(capsys, "evaluate", "scenes", "--output", str(output))
        assert "is a file" in refused(capsys, "demo", "--output", str(output))
        assert "is a file" in refused(capsys, "convert", "x.pth", str(output))
    assert (tmp_path / "file").read_text() == "mine"
    refused(capsys, "train", "scenes", "--output", str(tmp_path / ("x" * 3_000)))
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write wherever a mode forbids it
    assert "read-only" in refused(capsys, "train", "scenes", "--output", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_the_list_of_commands_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert main([]) == 2
