"""Compressed files are measured before they are expanded: a small one may claim to be more than the memory holds."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from counterpoint.common.errors import InputError

LIMIT = 1 << 30
"""Bytes that an archive may always expand to."""
RATIO = 100
"""Beyond `LIMIT` it may expand to this many times its own size."""
_MEMBERS = 100_000
_UNPACKERS = {
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz"), "tar -xf"), ".gz": "gunzip", ".z": "gunzip", ".bz2": "bunzip2",
    ".xz": "unxz", ".lzma": "unlzma", ".zst": "unzstd", ".zip": "unzip", ".7z": "7z x", ".rar": "unrar x",
}  # fmt: skip
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst",
          b"7z\xbc\xaf\x27\x1c": ".7z", b"Rar!": ".rar"}  # fmt: skip


def packed(path: str | Path) -> str:
    """That a file is compressed, and how it is unpacked, when its name says so; empty for all other files.

    >>> packed("r.edf.gz"), packed("set.tar.gz"), packed("r.edf")
    ('is compressed, unpack it first (gunzip)', 'is an archive, unpack it first (tar -xf)', '')
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if not suffixes or suffixes[-1] not in _UNPACKERS:
        return ""
    last = ".tar" if suffixes[-2:-1] == [".tar"] else suffixes[-1]
    what = "is compressed" if last in (".gz", ".z", ".bz2", ".xz", ".lzma", ".zst") else "is an archive"
    return f"{what}, unpack it first ({_UNPACKERS[last]})"


def inner_suffix(path: str | Path) -> str:
    """What a compressed file is when unpacked, by its name: `.edf` of `r.edf.gz`; empty for a whole archive or none."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in _UNPACKERS and suffixes[-2] != ".tar" else ""


def packed_inside(path: str | Path) -> str:
    """That a file is compressed although its name does not say so; empty for all other files. Opens it, if it is a
    regular one: a named pipe would wait for its writer."""
    if not Path(path).is_file():
        return ""
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except OSError:
        return ""
    found = next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")
    if not found or Path(path).suffix.lower() == found:
        return ""
    how = f"add {found} to its name and unpack it ({_UNPACKERS[found]})"
    return f"is compressed although its name does not say so; {how}"


def check_zip(path: str | Path, limit: int = LIMIT, ratio: int = RATIO, whole: bool = False) -> None:
    """Refuse a zip archive (`.npz`, `.mxl`) that is damaged, leads out of its folder, or expands to too much.

    The declared sizes count; Python's own reader never gives more than them. For a native reader ask for `whole`: every
    member is then expanded once, a piece at a time, and its checksum compared.

    Raises:
        InputError: with the reason, naming the file and the member.
    """
    path = Path(path)
    most = max(limit, ratio * path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS:
                raise InputError(f"{path}: holds {len(members)} members; more than {_MEMBERS} are not read, split it")
            total = 0
            for member in members:
                if member.filename.startswith(("/", "\\")) or ".." in member.filename.replace("\\", "/").split("/"):
                    raise InputError(
                        f"{path}: its member {member.filename!r} leads out of the archive's own folder; do not "
                        "trust this file"
                    )
                total += member.file_size
                if total > most:
                    raise InputError(
                        f"{path}: expands from {path.stat().st_size:,} to at least {total:,} bytes; "
                        f"more than {most:,} is not read, split the file"
                    )
            for member in members if whole else ():
                with archive.open(member) as content:
                    while content.read(1 << 20):
                        pass
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno is not None and error.filename):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is no whole archive ({reason[:120]}); copy the file again") from None


def read_gzip(path: str | Path, limit: int = LIMIT, ratio: int = RATIO) -> bytes:
    """The content of a gzip file, which must not expand to more than `limit` or `ratio` times its size.

    Raises:
        InputError: too large, or no whole gzip file.
    """
    import gzip

    path = Path(path)
    most = max(limit, ratio * path.stat().st_size)
    try:
        with gzip.open(path) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise InputError(f"{path}: is no whole gzip file ({' '.join(str(error).split())}); copy it again") from None
    if len(content) > most:
        raise InputError(
            f"{path}: expands from {path.stat().st_size:,} to more than {most:,} bytes, which is not read; "
            "split the file, or expand it yourself"
        )
    return content
