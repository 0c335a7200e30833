"""How often each part of an index was begun; without imports, so that a process that counts is small."""

from __future__ import annotations


class Attempts:
    """Counts beginnings: a worker that dies at a file cannot tell that it died there before."""

    def __init__(self) -> None:
        self.begun: dict[int, int] = {}

    def begin(self, part: int) -> int:
        """Count a beginning of a part; returns how many there were with it."""
        self.begun[part] = self.begun.get(part, 0) + 1
        return self.begun[part]
