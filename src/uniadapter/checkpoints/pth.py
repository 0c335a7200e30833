"""Read PyTorch's `.pth` files safely, from untrusted sources.

No code in them is run (`weights_only=True`), no more memory is allocated than the file's size justifies, and the result
is plain tensors by name, each with its own memory.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from uniadapter.errors import CheckpointError
from uniadapter.files.messages import shortened

MOST_PICKLED = 2 << 20  # bytes of pickled names and sizes; BLIP's files have a tenth of that
_TOO_MUCH = (
    f"holds more than {MOST_PICKLED >> 20} MB of names and objects beside its tensors; "
    "re-save it with nothing but its state dict"
)
_WRAPPED_IN = ("model", "state_dict")


def read_pth(path: Path | str, shapes_only: bool = False) -> dict[str, Tensor]:
    """The tensors of a `.pth` file by name, unwrapped from {"model": …} or {"state_dict": …}.

    Args:
        path: of the file.
        shapes_only: do not read the values, if the format allows it; the tensors are then on the "meta" device.

    Raises:
        CheckpointError: the file is missing, broken, holds no tensors or unusable ones, or carries code; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    state = _loaded(path, shapes_only)
    for wrapping in _WRAPPED_IN:
        inner = state.get(wrapping) if isinstance(state, dict) else None
        state = inner if isinstance(inner, dict) else state
    found = state.items() if isinstance(state, dict) else ()
    tensors: dict[str, Tensor] = {}
    for key, value in found:
        if isinstance(value, Tensor):
            _check_tensor(path, key, value)
            if not shapes_only and value.device.type != "cpu":
                raise CheckpointError(f"{path}: {key} has no values (it was saved from the {value.device} device)")
            tensors[key.removeprefix("module.")] = value.detach()
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; a checkpoint is a dict of names to tensors")
    return _apart(tensors)


def _loaded(path: Path, shapes_only: bool) -> Any:
    zipped = False
    try:
        zipped = _check_zip(path)
        with path.open("rb") as file:
            source = cast(IO[bytes], file if zipped else _Watched(file))
            where = "meta" if shapes_only and zipped else "cpu"
            with warnings.catch_warnings():  # about old protocols and tensor types, which are refused or work
                warnings.simplefilter("ignore")
                return torch.load(source, map_location=where, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # invalid bytes make the unpickler raise anything
        if shapes_only and zipped:  # "meta" does not support all tensor types
            return _loaded(path, False)
        reason = _reason(error)
        if isinstance(error, pickle.UnpicklingError) and re.search("global|class|function", reason, re.IGNORECASE):
            raise CheckpointError(
                f"{path}: refused, since it holds more than tensors and reading it could run code ({reason}); "
                "re-save it with nothing but its state dict"
            ) from error
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint ({reason}); is it complete?") from error


def _reason(error: Exception) -> str:
    """The cause in torch's message, without its advice: "Trying to load unsupported GLOBAL posix.system …"."""
    said = [part for part in str(error).split("\n\n") if part.strip() and "documentation of torch.load" not in part]
    return shortened(said[-1], 100) if said and "weights_only" not in said[-1] else type(error).__name__


def _check_zip(path: Path) -> bool:
    """Whether a file has PyTorch's zip format; raises if it would unpack to more than its own size."""
    if not zipfile.is_zipfile(path):
        return False
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size:
            raise CheckpointError(f"{path}: its {size:,} bytes claim to unpack to more, as PyTorch's files never do")
        for entry in entries:
            if entry.filename.endswith("data.pkl") and entry.file_size > MOST_PICKLED:
                raise CheckpointError(f"{path}: {_TOO_MUCH}")
            if entry.filename.endswith("data.pkl") and b"bytearray" in archive.read(entry):
                raise CheckpointError(f"{path}: refused, since it makes byte arrays of any size beside its tensors")
    return True


class _Watched(io.BufferedIOBase):
    """A file in PyTorch's older format, where the number of reads limits the size of the pickle."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._reads = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read, and count."""
        self._reads += 1
        if self._reads > MOST_PICKLED // 4:
            raise ValueError(_TOO_MUCH)
        return self._file.read(-1 if size is None else size)

    def readline(self, size: int | None = -1) -> bytes:
        """Read to the line's end, and count."""
        self._reads += 1
        return self._file.readline(-1 if size is None else size)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True


def _check_tensor(path: Path, key: object, tensor: Tensor) -> None:
    """Raise for names and tensor types that no state dict of a BLIP has, before anything is copied."""
    if not isinstance(key, str):
        raise CheckpointError(f"{path}: one of its tensors has a {type(key).__name__} as its key, not a name")
    if key != key.encode(errors="replace").decode():  # an unpaired surrogate, which cannot be written as UTF-8
        raise CheckpointError(f"{path}: the name {shortened(ascii(key), 80)} is not valid text; re-save the weights")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        raise CheckpointError(f"{path}: {key} is a {kind} tensor; re-save the weights as plain (dense) floats")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {key} claims the shape {list(tensor.shape)}, of which the file holds a part only (an expanded "
            "tensor); re-save it with .contiguous()"
        )


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with its own memory: BLIP's files share some between encoder and decoder."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        shared = place in seen and tensor.device.type == "cpu"
        seen.add(place)
        out[name] = tensor.clone() if shared else tensor
    return out
