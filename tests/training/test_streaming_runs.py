"""Runs on shards and streams: killed and resumed, on several processes, for each task; and what was left out."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from training_runs import assert_same, changed, make_config, save_dropping_base, save_questions, train, weights

from squares import COLOURS, captions, save_base, save_pictures
from uniadapter import train as train_in_python
from uniadapter.app.cli import main
from uniadapter.config import RunConfig
from uniadapter.data.shard_writing import ShardSize, load_whole, write_shards
from uniadapter.errors import Interrupted
from uniadapter.processes.distributed import gather_list
from uniadapter.training.trainer import Trainer


def on_shards(config: RunConfig, folder: Path, **data: Any) -> RunConfig:
    """The same run on three shards of its training data."""
    assert config.data.train is not None
    records = load_whole(config.data.train, config.data, config.task, "train")
    write_shards(records, str(folder / "shards"), config.task, config.data, ShardSize(3))
    return replace(config, data=replace(config.data, train=str(folder / "shards"), shuffle_buffer=8, **data))


def stop_at(step: int) -> Any:
    def ready(trainer: Trainer) -> None:
        original = trainer._step

        def counted(*rest: Any) -> None:
            original(*rest)
            trainer._stop = trainer.step == step

        trainer._step = counted  # type: ignore[method-assign]

    return ready


def test_a_run_on_shards_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    config = on_shards(make_config(tmp_path, save_dropping_base(tmp_path / "base")), tmp_path)
    whole = train(config, tmp_path / "whole")
    assert (whole.batches, whole.steps) == (4, 12)  # 16 captions in batches of 5, for three epochs
    for step in (2, 6):
        part = tmp_path / f"part-{step}"
        with pytest.raises(Interrupted):
            train(config, part, ready=stop_at(step))
        again = replace(config, data=replace(config.data, workers=2, cache=str(tmp_path / "cache")))
        assert_same(weights(train(again, part, resume=True)), weights(whole))
    moved = replace(config, data=replace(config.data, train=str(tmp_path / "shards" / "train-{000000..000001}.tar")))
    with pytest.raises(Exception, match=r"the records of data.train or their order have changed"):
        train(moved, part, resume=True)
    other = replace(config, data=replace(config.data, shuffle_buffer=3))
    with pytest.raises(Exception, match=r"data.shuffle_buffer was 8, now 3"):
        train(other, part, resume=True)


def stream_config(folder: Path, base: Path) -> RunConfig:
    datasets.disable_progress_bars()
    config = make_config(folder, base)
    names = save_pictures(folder / "stream")
    rows = {"image": [str(folder / "stream" / name) for name in names], "text": [captions(one)[0] for one in COLOURS]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for number in range(2):
        part = {key: values[4 * number : 4 * number + 4] for key, values in rows.items()}
        datasets.Dataset.from_dict(part, features=features).to_parquet(folder / "set" / f"train-{number}.parquet")
    return replace(config, data=replace(config.data, train=f"hf://{folder / 'set'}", samples=8, shuffle_buffer=5))


def process(rank: int, port: int, configs: dict[str, RunConfig], folder: str) -> None:
    """One of two processes; a failed assertion fails the test."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    try:
        for name, config in configs.items():
            seen: list[int] = []
            trainer = train(config, Path(folder, name), ready=lambda one, seen=seen: remember(one, seen))  # type: ignore[misc]
            both = gather_list([seen])
            if rank == 0:
                torch.save({"weights": weights(trainer), "seen": both}, Path(folder, f"{name}.pt"))
    finally:
        dist.destroy_process_group()


def remember(trainer: Trainer, seen: list[int]) -> None:
    """Note the samples of each batch."""
    original = trainer.gradients.of_batch

    def noting(batch: Any, *rest: Any) -> Any:
        seen.extend(batch.sample_ids.tolist())
        return original(batch, *rest)

    trainer.gradients.of_batch = noting  # type: ignore[method-assign]


@pytest.mark.slow
def test_two_processes_train_on_the_samples_of_one(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    for name in ("shards", "stream"):
        (tmp_path / name).mkdir()
    configs = {
        "shards": changed(
            on_shards(make_config(tmp_path / "shards", base), tmp_path / "shards"), epochs=2, batch_size=4, lr=1e-3
        ),
        "stream": changed(stream_config(tmp_path / "stream", base), epochs=2, batch_size=4, lr=1e-3),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(process, (port, configs, str(tmp_path / "two")), nprocs=2, start_method="spawn")
    for name, config in configs.items():
        seen: list[int] = []
        one = weights(train(config, ready=lambda trainer, seen=seen: remember(trainer, seen)))  # type: ignore[misc]
        two = torch.load(tmp_path / "two" / f"{name}.pt", weights_only=True)
        for key, value in one.items():
            assert torch.allclose(value.double(), two["weights"][key].double(), rtol=0, atol=1e-5), key
        assert sorted(seen) == sorted(two["seen"][0] + two["seen"][1])
        assert abs(len(two["seen"][0]) - len(two["seen"][1])) <= 8


def test_questions_and_captions_and_videos_of_one_frame(tmp_path: Path) -> None:
    config = make_config(tmp_path, save_base(tmp_path / "base"))
    base, file = save_questions(tmp_path, 2)
    asked = replace(
        config, task="vqa", model=replace(config.model, base=str(base)),
        data=replace(config.data, train=str(file), val=None, test=None, together=2),
    )  # fmt: skip
    plain = train(changed(asked, epochs=1), tmp_path / "plain")
    (tmp_path / "q").mkdir()
    trainer = train(changed(on_shards(asked, tmp_path / "q"), epochs=1), tmp_path / "vqa")
    assert trainer.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=0.5)
    (tmp_path / "q" / "shards" / "answers.json").unlink()
    alone = replace(asked, data=replace(asked.data, train=str(tmp_path / "q" / "shards")))
    with pytest.raises(Exception, match=r"there is no answers.json beside"):
        train(alone)
    (tmp_path / "list.json").write_text('["red", "blue"]')
    listed = replace(alone, data=replace(alone.data, answer_list=str(tmp_path / "list.json")))
    assert train(changed(listed, max_steps=1)).step == 1


def test_a_stream_goes_on_with_the_same_numbers_and_trains_in_python(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    config = changed(stream_config(tmp_path, base), batch_size=3)
    whole = train(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, tmp_path / "part", ready=stop_at(4))
    assert_same(weights(train(config, tmp_path / "part", resume=True)), weights(whole))
    rows = datasets.load_dataset(str(tmp_path / "set"), split="train", streaming=True)
    run = replace(config, train=replace(config.train, max_steps=2))
    trained = train_in_python(str(base), rows, config=run, output=tmp_path / "python")
    assert trained.steps == 2


def command(tmp_path: Path, base: Path, output: str, *more: str) -> list[str]:
    return [
        "train", "pictures", "--model.base", str(base), "--data.train", str(tmp_path / "shards"), "--data.test", "null",
        "--data.val", "null", "--data.extra_tests", "{}", "--train.keep", "last", "--data.shuffle_buffer", "8",
        "--train.batch_size", "3", "--train.epochs", "12", "--train.max_steps", "0", "--train.save_every", "3",
        "--model.adapter.bottleneck", "4", "--train.evaluate_every", "0", "--model.max_tokens", "20",
        "--train.log_every", "5", "--data.workers", "1", "--train.precision", "no",
        "--output", str(tmp_path / output), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_is_killed_shows_every_sample_once(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    on_shards(make_config(tmp_path, base), tmp_path)
    assert main(command(tmp_path, base, "whole")) == 0
    killed = 0
    for lines in (2, 0):
        again = [sys.executable, "-m", "uniadapter", *command(tmp_path, base, "killed", "--resume_or_start")]
        process = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        history = tmp_path / "killed" / "history.jsonl"
        deadline = time.monotonic() + 60
        while lines and process.poll() is None and time.monotonic() < deadline:
            if history.exists() and len(history.read_text().splitlines()) >= lines:
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.02)
        process.wait(100)
    one, other = (tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "killed"))
    assert killed
    assert one.read_bytes() == other.read_bytes()


def test_what_training_left_out_is_in_the_results(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    on_shards(make_config(tmp_path, base), tmp_path)
    (tmp_path / "shards" / "train-000001.tar").write_bytes(b"<html>gone</html>" * 100)
    few = ("--train.epochs", "1", "--data.on_error", "skip")
    assert main(command(tmp_path, base, "left", *few)) == 0
    found = json.loads((tmp_path / "left" / "metrics.json").read_text())["trained_without"]
    assert found["faults"] == {"lost shard": 1}
    assert "train-000001.tar" in found["shards"][0]
    assert main(command(tmp_path, base, "stopped", *few, "--data.most_lost_shards", "0")) == 2
    assert main(command(tmp_path, base, "raised", "--train.epochs", "1")) == 2
