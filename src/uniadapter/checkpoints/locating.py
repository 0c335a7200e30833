"""Where an adapter is: in a folder, in this package, or elsewhere."""

from __future__ import annotations

from pathlib import Path

from uniadapter.checkpoints.embedded_adapters import local_adapter
from uniadapter.checkpoints.sharing import is_address, pulled


def locate_adapter(source: Path | str) -> Path:
    """The folder of an adapter: a path, `embedded:NAME`, or an address, from which it is copied to the user's cache.

    Raises:
        CheckpointError: this package has no adapter of that name, or there is none at the address.
    """
    return pulled(str(source)) if is_address(source) else local_adapter(source)
