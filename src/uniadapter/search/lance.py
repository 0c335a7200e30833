"""LanceDB, which is installed on demand."""

from __future__ import annotations

from types import ModuleType

from uniadapter.errors import UsageError

TABLES = "tables"  # their folder, below the index's


def lancedb() -> ModuleType:
    """The module.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import lancedb
        import pyarrow  # noqa: F401 - its tables are what LanceDB takes
    except ImportError:
        raise UsageError('searching needs LanceDB: pip install "uniadapter[search]"') from None
    return lancedb
