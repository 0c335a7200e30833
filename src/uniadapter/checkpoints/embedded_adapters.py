"""Adapters that ship with this package, `embedded:NAME`, trained on the embedded tasks."""

from __future__ import annotations

from pathlib import Path

from uniadapter.errors import CheckpointError
from uniadapter.files.assets import PREFIX, asset_path


def embedded_adapters() -> list[str]:
    """Their names: those of the configs with which they were trained."""
    try:
        folder = asset_path("adapters")
    except FileNotFoundError:
        return []
    return sorted(one.name for one in folder.iterdir() if one.is_dir())


def local_adapter(source: Path | str) -> Path:
    """The folder of an adapter on this machine: `embedded:NAME` is one of this package, all else a path.

    Raises:
        CheckpointError: this package has no adapter of that name; says which it has.
    """
    name = str(source)
    if not name.startswith(PREFIX):
        return Path(source).expanduser()
    known = embedded_adapters()
    if name.removeprefix(PREFIX) not in known:
        have = ", ".join(PREFIX + one for one in known) or "none"
        raise CheckpointError(f"there is no adapter {name!r} in this package; there is {have}")
    return asset_path("adapters") / name.removeprefix(PREFIX)
