"""What a person sees: bars that fit 80 columns, whole lines in pipes, losses in the log whatever is shown."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from pathlib import Path

import pytest
from rich.console import Console

from squares import karpathy
from test_commands import base, write_run  # noqa: F401
from uniadapter.app import display
from uniadapter.app.cli import main
from uniadapter.app.display import TrainingBar, clock, logged_to, say, set_up_logging
from uniadapter.errors import ConfigError
from uniadapter.training import progress
from uniadapter.training.trainer import ProgressEvent, Trainer

TICK = ProgressEvent(1200, 12000, 3, {"loss": 1.234, "itc": 0.987, "itm": 0.247}, 1e-5, 1234.0, 3723.0)


@pytest.mark.parametrize("width", [80, 60, 200])
def test_a_bar_is_one_row_of_the_terminal(width: int) -> None:
    shown_on = Console(file=io.StringIO(), width=width, force_terminal=True)
    bars = display._bars(shown_on)
    bars.add_task("full_fine_tuning: measuring", total=12000, completed=1200, note="loss 1.234 " * 9, left=3723.0)
    with shown_on.capture() as shown:
        shown_on.print(bars.get_renderable())
    rows = shown.get().splitlines()
    assert len(rows) == 1
    assert "1200/12000" in rows[0]
    assert "left 1:02:03" in rows[0]
    assert width < 80 or "loss" in rows[0]


def test_a_tick_is_a_whole_line_in_pipe_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("uniadapter")
    handler = display._LineHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with logged_to(tmp_path), TrainingBar("uniadapter") as bar:
            bar(TICK)
            logger.info("saved to %s", "x" * 300)
    finally:
        logger.removeHandler(handler)
    for text in (capsys.readouterr().out, (tmp_path / display.LOG).read_text()):
        line = next(line for line in text.splitlines() if "step 1200/12000" in line)
        for part in ("loss 1.234", "itc 0.987", "lr 1.0e-05", "1:02:03 left"):
            assert part in line
        assert "x" * 300 in text


def test_on_a_terminal_losses_are_on_the_bar_and_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown_on = Console(file=io.StringIO(), width=80, force_terminal=True)
    monkeypatch.setattr(display, "console", shown_on)
    handler = display._terminal_handler()
    logger = logging.getLogger("uniadapter")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with logged_to(tmp_path), TrainingBar("uniadapter") as bar:
            bar(TICK)
            logger.info("n" * 100_000)  # rich's highlighter took minutes over it
    finally:
        logger.removeHandler(handler)
    assert "loss 1.234" in (tmp_path / display.LOG).read_text()
    assert "step 1200/12000" not in shown_on.file.getvalue()  # type: ignore[attr-defined]


def test_what_cannot_be_printed_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps what is logged for its report, and could not send that from one process to another.
    for handler in logging.getLogger().handlers:
        if type(handler).__module__.startswith("_pytest"):
            monkeypatch.setattr(handler, "emit", lambda record: None)
    say("half \ud83d an emoji")
    with logged_to(tmp_path):
        logging.getLogger("uniadapter").warning("half \ud83d an emoji")
    assert "half \\ud83d an emoji" in capsys.readouterr().out
    assert "half \\ud83d an emoji" in (tmp_path / display.LOG).read_text()


def test_the_log_keeps_the_error_that_ended_the_run(tmp_path: Path) -> None:
    for error, places in ((ConfigError("train.lr is 0"), False), (TypeError("ours"), True)):
        with pytest.raises(type(error)), logged_to(tmp_path, type(error).__name__):
            raise error
        text = (tmp_path / type(error).__name__).read_text()
        assert str(error) in text
        assert ("Traceback" in text) == places


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_costs_the_log_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / display.LOG).symlink_to("/dev/full")
    with logged_to(tmp_path):
        for _ in range(3):
            logging.getLogger("uniadapter").warning("a line")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left" in error


def test_libraries_are_heard_only_when_they_warn() -> None:
    set_up_logging()
    assert logging.getLogger().level == logging.WARNING
    assert sys.stdout.isatty() or not display.console.is_terminal
    assert (clock(59.6), clock(3723)) == ("0:01:00", "1:02:03")


def test_slow_steps_are_told_of_and_time_left_is_this_process_s(
    tmp_path: Path,
    base: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines by time as well as by steps, the history by steps alone; after resuming, the speed is that of now."""
    run = write_run(tmp_path, base, karpathy(tmp_path, "flickr30k"), train={"epochs": 3, "log_every": 1000})
    monkeypatch.setattr(progress, "MAX_SILENT_SECONDS", 0.0)
    step, stops, began = Trainer._step, [2], []

    def stopping(self: Trainer, *args: object) -> object:
        found = step(self, *args)  # type: ignore[arg-type]
        began.append(self.progress.session_start[0])
        self._stop = self.step in stops
        return found

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(SystemExit):
        main(["train", str(run)])
    stops.clear()
    assert main(["train", str(run), "--resume"]) == 0
    assert (began[0], began[-1]) == (0, 2)
    log = (tmp_path / "run" / display.LOG).read_text()
    history = (tmp_path / "run/history.jsonl").read_text().splitlines()
    steps = len(began)
    assert all(f"step {one}/{steps}" in log for one in range(1, steps + 1))
    assert len(history) == 1


def test_the_command_that_goes_on_can_be_pasted(
    tmp_path: Path,
    base: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    run = write_run(folder, base, karpathy(folder, "flickr30k"))
    step = Trainer._step

    def stopping(self: Trainer, *args: object) -> object:
        self._stop = True
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", stopping)
    given = ["train", str(run), "--data.extra_tests", "{}", "--model.prompt", "it's a"]
    with pytest.raises(SystemExit):
        main(given)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("stopped"))
    command = line.partition("; go on with: ")[2]
    assert shlex.split(command) == ["uniadapter", *given, "--resume"]
