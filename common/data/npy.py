"""NumPy files looked at before they are read: no Python objects, and no more numbers than the file holds."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from counterpoint.common.data.archives import check_zip
from counterpoint.common.errors import InputError

BROKEN = (
    ValueError, OSError, EOFError, KeyError, SyntaxError, TokenError, TypeError, MemoryError, OverflowError,
    RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise at damaged files."""


def check_npy(path: Path) -> None:
    """Refuse a `.npy` or `.npz` that is damaged, holds Python objects, or claims more bytes than there are, before
    memory is taken for it.

    Raises:
        InputError: with the reason and the remedy, naming the file.
    """
    if path.suffix.lower() == ".npz":
        check_zip(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        _check_header(path, file, member.file_size, f"{member.filename}: ")
        return
    with path.open("rb") as file:
        _check_header(path, file, path.stat().st_size)


def unreadable_numpy(path: Path, error: BaseException) -> InputError:
    """The sentence for what numpy raised while it read a file."""
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return InputError(
        f"{path}: not a readable NumPy file ({reason[:120]}); copy it again, and save numeric arrays only"
    )


def _check_header(path: Path, file: Any, size: int, what: str = "") -> None:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except BROKEN as error:
        raise InputError(f"{path}: {what}not a readable NumPy file, its header is damaged; copy it again") from error
    if dtype.hasobject:
        raise InputError(
            f"{path}: {what}not a readable NumPy file, it holds Python objects; save numeric arrays only "
            "(np.asarray(x, float))"
        )
    claimed = dtype.itemsize
    for side in shape:
        claimed *= int(side)
    if claimed > size:
        raise InputError(
            f"{path}: {what}not a readable NumPy file, it is cut: {claimed:,} bytes of numbers are announced and at "
            f"most {size:,} are there; copy it again"
        )
