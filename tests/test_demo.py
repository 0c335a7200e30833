"""The flow of a demo: UniAdapter first and shown at once, then without its fused part, then the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from squares import karpathy, save_base
from uniadapter.app import demo
from uniadapter.app.cli import main
from uniadapter.config import (
    AdapterConfig,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainConfig,
)
from uniadapter.errors import Interrupted
from uniadapter.report import read_metrics

VARIANT = "without the fused part"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scenes' demo on a tiny base and eight pictures; the folder of its run."""
    base, files = save_base(tmp_path / "base"), karpathy(tmp_path, "flickr30k")

    def config(task: str, method: str, seed: int) -> RunConfig:
        return RunConfig(
            model=ModelConfig(
                base=str(base),
                method="full" if method == "full_fine_tuning" else "uniadapter",
                adapter=AdapterConfig(bottleneck=8, key_value=4),
            ),
            data=DataConfig(train=files["train"], test=files["test"], root=str(tmp_path), workers=0),
            objective=ObjectiveConfig(queue_size=0),
            train=TrainConfig(max_steps=2, batch_size=4, seed=seed),
            evaluate=EvaluateConfig(k=4),
        )

    monkeypatch.setattr(demo, "demo_config", config)
    return tmp_path / "run"


def methods(folder: Path) -> list[tuple[str, str | None]]:
    return [(row.method, row.setting) for row in read_metrics(folder / "metrics.json").rows]


def test_uniadapter_comes_first_and_every_arm_is_a_row(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = demo.run_demo("scenes", small)
    assert methods(small) == [
        ("zero_shot", None), ("uniadapter", None), ("uniadapter", VARIANT), ("full_fine_tuning", None)
    ]  # fmt: skip
    rows = {(row["method"], row.get("setting")): row for row in metrics["rows"]}
    whole, part = rows["uniadapter", None], rows["uniadapter", VARIANT]
    assert part["checkpoint_bytes"] == 0 < whole["checkpoint_bytes"]
    assert part["trainable_parameters"] == pytest.approx(whole["trainable_parameters"], rel=0.1)
    assert rows["full_fine_tuning", None]["trainable_percent"] == 100
    written = json.loads((small / "metrics.json").read_text())
    assert "unfinished" not in written
    assert written["data"] == demo.DEMOS["scenes"].data
    assert (small / "adapter/adapter_model.safetensors").stat().st_size == whole["checkpoint_bytes"]
    page = (small / "report.html").read_text()
    assert "UniAdapter · without the fused part" in page
    assert "where words look in the right picture" in page
    said = capsys.readouterr().out
    plan = said.index("UniAdapter, then UniAdapter · without the fused part, then full fine-tuning")
    first = said.index("still to come: UniAdapter · without the fused part, then full fine-tuning")
    second = said.index("still to come: full fine-tuning")
    assert plan < said.index(str(small / "report.html")) < first < second
    assert said.count("zero-shot ") >= 3  # the table, after each arm
    assert "the whole demo took" in said


@pytest.mark.parametrize(("finished", "kind"), [(1, KeyboardInterrupt), (2, Interrupted)])
def test_a_demo_that_is_stopped_leaves_what_was_finished(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: int, kind: type
) -> None:
    trained: list[str] = []
    train = demo.train_arm

    def stopping(arm: demo.Arm, *rest: object) -> object:
        if len(trained) == finished:
            raise kind() if kind is KeyboardInterrupt else Interrupted(None, 3)
        trained.append(arm.label)
        return train(arm, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(demo, "train_arm", stopping)
    assert main(["demo", "scenes", "--output", str(small)]) == 130
    left = ["UniAdapter", "UniAdapter · without the fused part"][:finished]
    assert f"stopped; what was finished (zero-shot, {', '.join(left)}) is in {small}" in capsys.readouterr().err
    assert methods(small) == [("zero_shot", None), ("uniadapter", None), ("uniadapter", VARIANT)][: 1 + finished]
    unfinished = json.loads((small / "metrics.json").read_text())["unfinished"]
    assert unfinished[-1] == "full fine-tuning"
    assert len(unfinished) == 3 - finished
    assert "full fine-tuning" in (small / "report.html").read_text()
    monkeypatch.setattr(demo, "train_arm", train)
    demo.run_demo("scenes", small)  # replaces it
    assert len(methods(small)) == 4


def test_stopped_before_anything_was_trained(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "zero_shot", stop)
    with pytest.raises(Interrupted, match="stopped; nothing was saved"):
        demo.run_demo("scenes", small)
    monkeypatch.undo()


def test_a_new_demo_s_first_results_do_not_stand_beside_old_weights(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.run_demo("scenes", small)
    assert (small / "model/model.safetensors").exists()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.DemoResults, "add", stop)
    with pytest.raises(Interrupted):
        demo.run_demo("scenes", small, seed=1)
    assert not (small / "model").exists()


def test_without_a_fused_part_there_is_no_second_arm(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = demo.demo_config

    def bare(task: str, method: str, seed: int) -> RunConfig:
        found = config(task, method, seed)
        adapter = replace(found.model.adapter, cross=False, key_value=0)
        return replace(found, model=replace(found.model, adapter=adapter))

    monkeypatch.setattr(demo, "demo_config", bare)
    assert [arm.label for arm in demo.demo_arms("scenes", 0)] == ["UniAdapter", "full fine-tuning"]


def test_question_only_comes_last_and_is_not_saved() -> None:
    arms = demo.demo_arms("vqa", 0)
    assert [(arm.method, arm.saved) for arm in arms] == [
        ("uniadapter", True), ("uniadapter", False), ("full_fine_tuning", True), ("question_only", False)
    ]  # fmt: skip
    assert arms[-1].config.data.blank
