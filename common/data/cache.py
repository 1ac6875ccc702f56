"""A content-addressed cache of files: the key holds every parameter, so a changed parameter is a new file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from counterpoint.common.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # a failed write names no file


class Cache:
    """Files (or folders) named by the SHA-256 of a dictionary; made once, also when several processes ask together.

    The root is `$COUNTERPOINT_CACHE`, else `~/.cache/counterpoint`.

    >>> import tempfile
    >>> cache = Cache(tempfile.mkdtemp())
    >>> path = cache.get_or_make({"piece": "bwv 66.6", "tempo": 80}, ".txt", lambda p: p.write_text("C E G"))
    >>> path.read_text()
    'C E G'
    """

    def __init__(self, root: str | Path | None = None) -> None:
        default = os.environ.get("COUNTERPOINT_CACHE") or Path.home() / ".cache" / "counterpoint"
        self.root = Path(root if root is not None else default)

    def path(self, key: Mapping[str, Any], suffix: str) -> Path:
        """Where the file of this key lies (or will lie)."""
        text = json.dumps(key, sort_keys=True, ensure_ascii=False, allow_nan=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.root / digest[:2] / f"{digest}{suffix}"

    def get_or_make(self, key: Mapping[str, Any], suffix: str, make: Callable[[Path], object]) -> Path:
        """Return the file, calling `make(temporary_path)` first if it is not there; a failed one leaves nothing.

        A file whose size is not the one it was made with (a full disk, a copy broken off) is made again.
        """
        path = self.path(key, suffix)
        if _whole(path):
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(f".{path.name}.lock")):
                if not _whole(path):
                    temporary = path.with_name(f".{os.getpid()}-{path.name}")
                    try:
                        _remove(temporary)  # of an earlier process of this number that was killed
                        make(temporary)
                        _remove(path)  # a truncated one; a folder would not be replaced
                        _note(path).write_text(str(_size(temporary)), encoding="utf-8")
                        os.replace(temporary, path)
                    finally:
                        _remove(temporary)
        except OSError as error:
            ours = Path(error.filename).is_relative_to(self.root) if error.filename else error.errno in _FULL
            if not ours:
                raise  # what `make` read or asked for failed, not the cache
            reason = error.strerror or error
            raise InputError(f"{self.root}: the cache cannot be written ({reason}); set COUNTERPOINT_CACHE") from error
        return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.size")


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _whole(path: Path) -> bool:
    """Whether the file is there with the size that it was made with; one without a note is taken as it is."""
    if not path.exists():
        return False
    try:
        return _size(path) == int(_note(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return not _note(path).exists()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
