"""One input in a process of its own: what it prints, raises, writes and leaves behind."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import constants as hub

from uniadapter import report
from uniadapter.app.cli import main
from uniadapter.report import page

LIMIT = 20.0  # seconds of its own, or of waiting
MEMORY = 3 << 30  # bytes beyond what the parent has
LONGEST = 300  # characters of an error
CANARY = "code-was-run"  # in the folder of the input
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
_STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect"}


@dataclass
class Case:
    """An input, ready to be read.

    Args:
        what: the mutation, in words.
        arguments: of the command.
        names: an error should have one of these, so that it says what to mend.
        passes: the command should end well all the same, since what cannot be read is to be skipped.
        draws: the page gets its curves, which take longer than all else and follow from settings alone.
    """

    what: str
    arguments: list[str]
    names: tuple[str, ...]
    passes: bool = False
    draws: bool = False


@dataclass
class Outcome:
    """What became of an input.

    Args:
        kind: "error", "accepted", "traceback" or "hang".
        what: the mutation, in words.
        text: the error, or the exception.
        place: where the exception was raised, ours and the innermost.
        faults: what is wrong beside a traceback: "long", "unnamed", "stopped".
        escapes: files written elsewhere and programs started.
        seconds: it took.
    """

    kind: str
    what: str
    text: str = ""
    place: str = ""
    faults: list[str] = field(default_factory=list)
    escapes: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Draw(random.Random):
    """The generator of an input, which also knows its number among those of its kind."""

    def __new__(cls, *_: object) -> Draw:
        """Without the arguments, which Python 3.10 refuses here."""
        return super().__new__(cls)

    def __init__(self, seed: int, kind: str, number: int) -> None:
        super().__init__(f"{seed}/{kind}/{number}")
        self.number = number


Make = Callable[[Path], Case]


def attempt(make: Make, folder: Path, limit: float = LIMIT) -> Outcome:
    """Make an input in `folder` and run its command, in a fork that may die."""
    folder.mkdir(parents=True)
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _in_child(make, folder, writing, limit)
        finally:
            os._exit(1)
    os.close(writing)
    messages = _messages(reading, child, started + limit)
    spent = time.monotonic() - started
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    outcome = _judged(messages, status, spent, limit, folder)
    if (folder / CANARY).exists():
        outcome.escapes.append("code in the input was run")
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _judged(messages: list[dict[str, Any]], status: int, spent: float, limit: float, folder: Path) -> Outcome:
    if messages and "unmade" in messages[0]:
        raise RuntimeError(f"{folder.name} could not be made: {messages[0]['unmade']}")
    what = messages[0]["what"] if messages else "while it was made"
    if len(messages) == 2:
        return Outcome(**messages[1], what=what, seconds=spent)
    log = folder / "stacks.txt"
    stack = log.read_text(errors="replace") if log.exists() else ""
    if spent >= limit:
        return Outcome("hang", what, f"more than {limit:.0f} s", _innermost(stack), seconds=spent)
    return Outcome("traceback", what, f"the process died ({os.waitstatus_to_exitcode(status)})", _innermost(stack))


def _messages(reading: int, child: int, until: float) -> list[dict[str, Any]]:
    """What the child says: its input, and how it ended.

    On a busy machine it gets longer, as long as it goes on working and has not worked for the whole time itself.
    """
    content, limit, worked = b"", until - time.monotonic(), 0.0
    while content.count(b"\n") < 2:
        if not select.select([reading], [], [], max(until - time.monotonic(), 0))[0]:
            before, worked = worked, _seconds_worked(child)
            if worked >= limit or worked - before < 0.2:
                break
            until = time.monotonic() + limit / 2
            continue
        if not (part := os.read(reading, 1 << 16)):
            break
        content += part
    os.close(reading)
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def _seconds_worked(process: int) -> float:
    """Processor time that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _in_child(make: Make, folder: Path, writing: int, limit: float) -> None:
    def send(message: dict[str, Any]) -> None:
        os.write(writing, json.dumps(message).encode() + b"\n")

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    stacks = (folder / "stacks.txt").open("w")
    faulthandler.enable(stacks)
    faulthandler.dump_traceback_later(0.9 * limit, file=stacks)
    (folder / "home").mkdir()
    os.environ.update(HOME=str(folder / "home"), TMPDIR=str(folder / "home"), UNIADAPTER_CACHE=str(folder / "home"))
    hub.HF_HUB_OFFLINE = True  # names of bases that are no folder are not asked for
    tempfile.tempdir = str(folder / "home")
    os.chdir(folder)
    said = os.open(folder / "said.txt", os.O_RDWR | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(said, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    try:
        case = make(folder)
    except Exception as error:
        send({"unmade": f"{type(error).__name__}: {error}"[:1000]})
        return
    send({"what": case.what})
    if not case.draws:
        report.curves = page.curves_section = lambda *_: ""  # type: ignore[assignment]
    _limit_memory()
    escapes: list[str] = []
    watched = _watch(folder, escapes)
    kind, text, place = _run(case.arguments)
    watched.clear()
    sys.stdout.flush()
    sys.stderr.flush()
    faults = []
    if kind == "error":
        lines = (folder / "said.txt").read_text(errors="replace").splitlines()
        text = next((line for line in reversed(lines) if line.startswith("error: ")), "")
        faults = [
            fault
            for fault, found in {
                "without a line": not text,
                "long": len(text) > LONGEST + len("error: "),
                "unnamed": not any(name in text for name in case.names),
                "stopped": case.passes,
            }.items()
            if found
        ]
    send({"kind": kind, "text": text[:1000], "place": place, "faults": faults, "escapes": escapes})


def _run(arguments: list[str]) -> tuple[str, str, str]:
    try:
        code = main(arguments)
    except BaseException as error:  # what this script looks for
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return "traceback", words[:300], _place(error)
    return ("accepted", "", "") if code == 0 else ("error", "", "")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/uniadapter/" in f.filename]
    shown = [ours[-1], frames[-1]] if ours else frames[-1:]
    return " <- ".join(dict.fromkeys(f"{_short(f.filename)}:{f.lineno}" for f in shown))


def _short(name: str) -> str:
    return name.rpartition("/uniadapter/")[2] if "/uniadapter/" in name else Path(name).name


def _innermost(stacks: str) -> str:
    """Of the dumped stacks, the innermost frame of ours and of all."""
    lines = [line.strip() for line in stacks.splitlines() if line.strip().startswith("File ")]
    ours = next((line for line in lines if "/src/uniadapter/" in line), "")
    shown = []
    for line in [ours, lines[0]] if lines else []:
        name, _, number = line.removeprefix("File ").partition(", line ")
        if line:
            shown.append(f"{_short(name.strip(chr(34)))}:{number.split()[0]}")
    return " <- ".join(dict.fromkeys(shown))


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _watch(folder: Path, escapes: list[str]) -> list[bool]:
    """Note what is written outside `folder` and what is started, until the list that is returned is emptied."""
    inside, on = os.path.realpath(folder), [True]
    busy = threading.local()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not on or getattr(busy, "now", False):
            return
        busy.now = True
        try:
            if event == "socket.connect" and arguments[0].family == socket.AF_UNIX:
                return  # how loading processes hand over what they loaded
            if event in _STARTS:
                escapes.append(f"{event} {str(arguments[0])[:80]}")
            elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
                _note(arguments[0], inside, event, escapes)
            elif event in _CHANGES:
                _note(arguments[1] if event in ("os.rename", "os.link") else arguments[0], inside, event, escapes)
        finally:
            busy.now = False

    sys.addaudithook(hook)
    return on


def _note(path: object, inside: str, event: str, escapes: list[str]) -> None:
    if isinstance(path, (str, bytes)):
        full = os.path.realpath(os.fsdecode(path))
        if not full.startswith((f"{inside}/", "/dev/", "/proc/")) and full != inside:
            escapes.append(f"{event} {full[:120]}")
