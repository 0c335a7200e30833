"""`history.jsonl` and `validation.jsonl`: one JSON object per step, in memory and in a file, each step once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uniadapter.files.writing import write_text

HISTORY = "history.jsonl"
LogRecord = dict[str, Any]


class StepLog:
    """JSON objects with a `step` each, kept in memory and, on rank 0, in a JSONL file.

    A new run leaves an older run's file unchanged until it writes its own first line. A resumed run keeps the lines up
    to the step of its checkpoint; later lines are removed, since those steps are repeated.

    Args:
        file: None keeps the lines in memory only, as on all ranks but 0.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.lines: list[LogRecord] = []
        self._appending = False

    def append(self, record: LogRecord) -> None:
        """Add a line."""
        self.lines.append(record)
        if self.file is None:
            return
        if self._appending:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        else:
            self._rewrite()

    def resume(self, source: Path, step: int) -> None:
        """Load the lines of a file up to a step, the last line of each step.

        Args:
            source: the file; every process reads it, only rank 0 writes.
            step: of the checkpoint.
        """
        by_step: dict[int, LogRecord] = {}
        for line in source.read_text(encoding="utf-8").splitlines() if source.is_file() else ():
            try:
                record = json.loads(line)
            except ValueError:  # truncated by a crash
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int) and record["step"] <= step:
                by_step[record["step"]] = record
        self.lines = [by_step[one] for one in sorted(by_step)]
        self._appending = False

    def _rewrite(self) -> None:
        assert self.file is not None
        write_text(self.file, "".join(json.dumps(line) + "\n" for line in self.lines))
        self._appending = True
