"""What each command begins with, once its arguments are known to be right, and ends with."""

from __future__ import annotations

import sys


def set_up() -> None:
    """Set up logging and memory; not needed for help or errors in the command line."""
    from uniadapter.app.display import set_up_logging
    from uniadapter.app.memory import keep_freed_memory

    set_up_logging()
    keep_freed_memory()


def shut_down() -> None:
    """End the process group, if there is one."""
    if "torch" in sys.modules:
        from uniadapter.processes.distributed import destroy_process_group

        destroy_process_group()
