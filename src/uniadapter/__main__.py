"""`uniadapter` and `python -m uniadapter`, which `accelerate launch` and `torchrun` can start on several processes."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the command line; Ctrl-C while it is still being imported is one line too."""
    try:
        from uniadapter.app.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(start())
