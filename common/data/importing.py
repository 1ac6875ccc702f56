"""What every importer does: find the files, name them, read them apart from this program, list what is left out, save.

    found = find_files(source, (".edf",))
    names = name_files(found.files, found.root)
    for file, facts in read_files(read_facts, found.files, rejected, workers=2):
        rows.append({"id": names[file], ...})
    return save_manifest(out, rows, [*found.rejected, *rejected])
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoint.common.data.archives import inner_suffix, packed, packed_inside
from counterpoint.common.data.isolation import MEMORY, TIMEOUT, isolated_map
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import ImportReport, Rejected


@dataclass(frozen=True)
class Found:
    """The files below a source, sorted, those that cannot be opened, and the folder that their names start from."""

    files: list[Path]
    rejected: list[Rejected]
    root: Path


def find_files(
    source: str | Path,
    suffixes: Sequence[str] = (),
    folders: Sequence[str] | None = None,
    gzipped: Sequence[str] = (),
) -> Found:
    """The files of these kinds (all without `suffixes`) in a folder and all below it, or the one file that is named.

    A file may be named without its suffix, as WFDB tools do. Links are followed, each folder is visited once, names
    that begin with a dot are passed over. What only looks like a file (a link that leads nowhere, a named pipe, a
    socket, a device, a folder with one of the suffixes `folders`, by default those looked for) and what may not be read
    is listed, and so are compressed files of these kinds (`r.edf.gz`), with the program that unpacks them; nothing is
    opened. Those of `gzipped` the field itself keeps in gzip files (`.nii` in `.nii.gz`), and their readers take both.

    Raises:
        InputError: there is no such source, nothing of these kinds in it, or the one file is of another kind.
    """
    source = _existing(Path(source), suffixes)
    if not source.is_dir():
        whole = _whole(source, gzipped)
        reason = unreadable(source) or ("" if whole else packed(source))
        if not reason and suffixes and not whole and source.suffix.lower() not in suffixes:
            reason = f"is no {' or '.join(suffixes)} file"
        if reason:
            raise InputError(f"{source}: {reason}")
        return Found([source], [], source.parent)
    kinds = suffixes if folders is None else folders
    archive = ""
    files: list[Path] = []
    rejected: list[Rejected] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        rejected.append(Rejected(str(error.filename), f"the folder may not be read ({(error.strerror or '').lower()})"))

    for folder, below, names in os.walk(source, onerror=refuse, followlinks=True):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:
            below.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        alike = [n for n in below if Path(n).suffix.lower() in kinds or _whole(n, gzipped)]
        rejected += [Rejected(str(Path(folder, name)), "is a folder, not a file") for name in alike]
        for name in names:
            if name.startswith("."):
                continue
            file, unpack = Path(folder, name), "" if _whole(name, gzipped) else packed(name)
            if unpack and inner_suffix(name) in kinds:
                reason = unpack
            elif not suffixes or file.suffix.lower() in suffixes or _whole(name, gzipped):
                reason = unreadable(file)
            else:
                archive = archive or (f"; {file.relative_to(source)} {unpack}" if unpack else "")
                continue
            if reason:
                rejected.append(Rejected(str(file), reason))
            else:
                files.append(file)
    if not files and not rejected:
        what = f"no {' or '.join(suffixes)} file in it" if suffixes else "an empty folder"
        raise InputError(f"{source}: {what}{archive}")
    return Found(sorted(files), sorted(rejected, key=lambda r: r.source), source)


def _whole(name: str | Path, gzipped: Sequence[str]) -> bool:
    """Whether a compressed file is of a kind that is read as it is."""
    return Path(name).suffix.lower() == ".gz" and inner_suffix(name) in gzipped


def _existing(source: Path, suffixes: Sequence[str]) -> Path:
    if os.path.lexists(source):
        return source
    for suffix in suffixes:
        if source.with_name(source.name + suffix).is_file():
            return source.with_name(source.name + suffix)
    raise InputError(f"{source}: no such file or folder")


def unreadable(path: str | Path) -> str:
    """Why a path is no file that can be read; empty when it is one. Never opens it: a named pipe would wait for ever.

    >>> unreadable("/dev/null"), unreadable("nowhere.edf")
    ('is a device, not a file', 'no such file')
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            return f"is a link that leads nowhere ({os.readlink(path)})"
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return "no such file" if missing else f"cannot be opened ({(error.strerror or str(error)).lower()})"
    except ValueError:  # a NUL in the name
        return "no such file"
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    if not stat.S_ISREG(mode):
        return f"is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file"
    return "" if os.access(path, os.R_OK) else "may not be read (permission denied)"


def require_file(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """The path, when it is a file that can be read; else an `InputError` that says what it is.

    With `suffixes` it must have one of them; a compressed one is told how to unpack it.
    """
    reason = unreadable(path)
    if not reason and suffixes and Path(path).suffix.lower() not in suffixes:
        reason = packed(path) or f"is no {' or '.join(suffixes)} file"
    if reason:
        raise InputError(f"{path}: {reason}{'; name a file in it' if os.path.isdir(path) else ''}")
    return Path(path)


def name_files(files: Sequence[Path], root: Path, gzipped: Sequence[str] = ()) -> dict[Path, str]:
    """An id for every file: its place below `root` without the suffix; with it where two would be the same. `gzipped`
    as for `find_files`.

    >>> names = name_files([Path("d/a/r.hea"), Path("d/r.csv"), Path("d/r.npz")], Path("d"))
    >>> list(names.values())
    ['a-r', 'r-csv', 'r-npz']
    """
    bare = {file: file.with_suffix("") if _whole(file, gzipped) else file for file in files}
    plain = {file: "-".join(bare[file].relative_to(root).with_suffix("").parts) for file in files}
    counts = Counter(plain.values())
    endings = {f: f.name.removeprefix(bare[f].stem).lstrip(".").replace(".", "-") for f in files}
    longer = {f: f"{name}-{endings[f]}" if counts[name] > 1 else name for f, name in plain.items()}
    counts = Counter(longer.values())
    return {f: f.relative_to(root).as_posix() if counts[name] > 1 else name for f, name in longer.items()}


def read_files(
    read: Callable[[Path], Any],
    files: Sequence[Path],
    rejected: list[Rejected],
    *,
    description: str = "reading files",
    workers: int = 1,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
) -> Iterator[tuple[Path, Any]]:
    """(file, what `read` says of it) for each file that can be read, in order; the others are added to `rejected`.

    `read` runs in worker processes (`isolation.isolated_map`): it is importable from a module, and whatever a damaged
    file does to its parser costs that file alone.
    """
    found = isolated_map(read, files, workers=workers, timeout=timeout, memory=memory)
    for file, facts in track(found, description, len(files)):
        if isinstance(facts, Rejected):
            rejected.append(Rejected(str(file), packed_inside(file) or plain_reason(facts.reason, file)))
        else:
            yield file, facts


def plain_reason(reason: str, file: Path) -> str:
    """A reason without the file's name in front, which stands beside it already.

    >>> plain_reason("in/a.sp, line 2: no", Path("in/a.sp"))
    'line 2: no'
    """
    for name in (str(file), file.name):
        for follows in (": ", ", "):
            reason = reason.removeprefix(name + follows)
    return reason


def save_manifest(
    out: str | Path,
    rows: Sequence[dict[str, Any]],
    rejected: Sequence[Rejected] = (),
    *,
    meta: dict[str, Any] | None = None,
    note: str = "",
    finish: Callable[[Any], Any] | None = None,
    outside: Sequence[Path] = (),
) -> ImportReport:
    """Write `out/manifest.parquet` (nothing without rows) and report what was taken and what was left out.

    `finish` may change the manifest before it is saved, to split it for example; `outside` names the folders that files
    were left in (`places.folders_of`), which manifests in `out` may read from then on.
    """
    from counterpoint.common.data.manifest import Manifest

    path = Path(out) / "manifest.parquet"
    if rows:
        manifest = Manifest.from_rows(list(rows), out, {**(meta or {}), "rejected": len(rejected)}, outside)
        (finish(manifest) if finish else manifest).save(path)
    return ImportReport(path, len(rows), tuple(rejected), note)


def megabytes(count: int) -> str:
    """A number of bytes in words.

    >>> megabytes(5 << 20)
    '5 MB'
    """
    return f"{count / (1 << 20):.0f} MB"
