"""The command `convert` as a Python function."""

from __future__ import annotations

from pathlib import Path

from uniadapter.app.display import say
from uniadapter.checkpoints.pth import read_pth
from uniadapter.files.messages import shortened
from uniadapter.model.blip.converting import convert_adapter, convert_blip

_MOST_LISTED = 200  # most names of unused tensors that are printed


def run_conversion(
    file: Path, output: Path, kind: str, frame_aware: bool, heads: dict[str, int], tokenizer: Path | None = None
) -> None:
    """Convert a `.pth` file of the UniAdapter authors to an adapter folder, or one of BLIP to a transformers folder.

    Args:
        file: the `.pth` file.
        output: the folder to write.
        kind: "uniadapter", "blip", or "auto" to recognise it.
        frame_aware: whether the adapter was trained with frame-aware attention.
        heads: `vision_heads` and `text_heads`: numbers of attention heads, 0 for width / 64.
        tokenizer: its folder or `vocab.txt`; None searches beside the file.

    Raises:
        CheckpointError: the file is broken, carries code, or is of neither kind.
    """
    file = file.expanduser()
    if kind == "auto":
        names = read_pth(file, shapes_only=True)
        kind = "uniadapter" if any(key.startswith("adapters.") for key in names) else "blip"
    missing = ""
    if kind == "uniadapter":
        imported = convert_adapter(file, output, frame_aware, **heads)
        say(f"{output}: an adapter, r = {imported.config.bottleneck}")
        unused = imported.unused
    else:
        converted = convert_blip(file, output, tokenizer, **heads)
        say(f"{output}: a folder of transformers files")
        unused, missing = converted.unused, converted.no_tokenizer
    for key in unused[:_MOST_LISTED]:
        say(f"not used: {shortened(ascii(key)[1:-1], 200)}")
    if len(unused) > _MOST_LISTED:
        say(f"not used: {len(unused) - _MOST_LISTED} more")
    say(f"{len(unused)} tensors of {file} were not used")
    if missing:
        say(f"{output} has no tokenizer yet, and cannot be used without one: {missing}")
