"""Ids from data as names of files: the one place where they become one, so that none leads out of its folder."""

from __future__ import annotations

import hashlib
import re

LONGEST = 120  # bytes: room for suffixes and temporary names below the 255 of file systems
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_ESCAPED = re.compile(r"""[\x00-\x1f\x7f-\x9f/\\:*?"<>|%~\ud800-\udfff]|^[. ]|[. ]$""")


def file_name(name: object) -> str:
    """The name of an id's file (without suffix); also of a group, a class, or whatever else data bring.

    Plain ids stay as they are. Escaped (`%2F`, as in URLs) is what means something to a file system: separators,
    control characters, a dot or blank at either end, Windows' reserved characters and names. Long ids are cut, with a
    part of their SHA-256. Two ids never share a name, and an id has the same one everywhere.

    >>> [file_name(n) for n in ("bwv66.6", "p1/day 2", "../../x", "", "NUL")]
    ['bwv66.6', 'p1%2Fday 2', '%2E.%2F..%2Fx', '%', '%4EUL']
    """
    text = str(name)
    escaped = _ESCAPED.sub(lambda found: _percent(found.group()), text)
    if _RESERVED.match(escaped):
        escaped = _percent(escaped[0]) + escaped[1:]
    if len(escaped.encode()) > LONGEST:
        mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        head = escaped.encode()[: LONGEST - len(mark) - 1].decode(errors="ignore")
        escaped = f"{head}~{mark}"  # a tilde stands in no name that was not cut
    return escaped or "%"


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
