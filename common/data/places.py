"""Where the files that a manifest names may lie: in its own folder, or in one that the user of this machine allowed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from counterpoint.common.errors import InputError

ALLOW = "COUNTERPOINT_ALLOW"
"""Environment variable: what files may name beyond the suite's own. With commas between: modules (or packages) of
systems, and folders (anything with a path separator) of files outside of a manifest's own folder."""
OUTSIDE = "outside"
"""The fact, in a manifest's `.meta.json`, under which an import records the folders that it left files in."""


def allowed_by_user(folders: bool) -> list[str]:
    """The folders, or the modules, that COUNTERPOINT_ALLOW names."""
    told = (name.strip() for name in os.environ.get(ALLOW, "").split(","))
    return [name for name in told if name and (os.sep in name or "/" in name) == folders]


@dataclass(frozen=True)
class Folder:
    """A manifest's folder, and what else its files may lie in: `folder / name` is a file's path, or an `InputError`.

    Links are followed before it is decided where a file lies.

    Attributes:
        root: the folder; names are relative to it.
        outside: further folders, which an import on this machine recorded (`recorded`) or the program that made the
            table gave.
        free: the table was made by this program, which may name what it likes.

    >>> Folder(Path("/data")) / "a/r.edf"
    PosixPath('/data/a/r.edf')
    >>> Folder(Path("/data")) / "../r.edf"
    Traceback (most recent call last):
    ...
    counterpoint.common.errors.InputError: '../r.edf' leads out of the manifest's folder, to /; if you trust the \
manifest, set COUNTERPOINT_ALLOW=/, else move the file into the folder
    """

    root: Path
    outside: tuple[Path, ...] = ()
    free: bool = False

    def __truediv__(self, name: object) -> Path:
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise InputError(f"{name!r} names no file")
        if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*:/", name) and len(name.partition(":")[0].strip()) > 1:
            raise InputError(f"{name!r} is a URL; a manifest names files by their path")
        path = self.root / name
        if not self.free:
            real = os.path.realpath(path)
            if not any(f"{real}{os.sep}".startswith(folder) for folder in self._folders):
                parent = os.path.dirname(real)
                raise InputError(
                    f"{name!r} leads out of the manifest's folder, to {parent}; if you trust the manifest, set "
                    f"{ALLOW}={parent}, else move the file into the folder"
                )
        return path

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        every = (self.root, *self.outside, *(Path(name).expanduser() for name in allowed_by_user(folders=True)))
        return tuple(os.path.realpath(folder).rstrip(os.sep) + os.sep for folder in every)


def record(folder: Path, outside: Iterable[Path]) -> dict[str, Any]:
    """The fact for `.meta.json`: which folders a manifest in `folder` may read, on this machine and at this place.

    It says where it was made, so that it is worth nothing beside a manifest that comes from elsewhere: whoever sends
    one cannot choose what is read here.
    """
    return {"at": os.path.realpath(folder), "folders": sorted({os.path.realpath(path) for path in outside})}


def recorded(folder: Path) -> tuple[Path, ...]:
    """The folders that imports into `folder` recorded there; good for every manifest in it, also an edited copy."""
    found: set[str] = set()
    for side in folder.glob("*.meta.json"):
        try:
            fact = json.loads(side.read_text(encoding="utf-8-sig")).get(OUTSIDE)
        except (ValueError, OSError, AttributeError, RecursionError):  # told where it is a manifest's own
            continue
        if isinstance(fact, dict) and fact.get("at") == os.path.realpath(folder):
            folders = fact.get("folders")
            found.update(p for p in (folders if isinstance(folders, list) else ()) if isinstance(p, str))
    return tuple(map(Path, sorted(found)))


def folders_of(files: Iterable[Path], source: Path) -> tuple[Path, ...]:
    """The folders that hold these files: the one they were found in, and those that links in it lead to."""
    base = os.path.realpath(source)
    parents = {os.path.dirname(os.path.realpath(file)) for file in files}
    return tuple(Path(p) for p in sorted({base, *(p for p in parents if not f"{p}{os.sep}".startswith(base + os.sep))}))
