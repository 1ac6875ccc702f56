"""Score files as text that may be given to a lenient engraver: decoded, whole, bounded, and without impossible numbers.

The engraver reads what is left of a damaged file and divides by what the file says, so every file is parsed strictly
first. Nothing outside the file is opened, and entities are not expanded.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path
from xml.parsers import expat

from counterpoint.audio_speech.kinds import SCORE_SUFFIXES
from counterpoint.common.data.archives import packed
from counterpoint.common.errors import InputError

LARGEST = 64 << 20
"""Bytes of one expanded score."""
DEEPEST = 200
"""Elements inside each other."""
MOST_REPEATS = 100
_MOST_MEMBERS = 1000
_ROOTS = ("score-partwise", "score-timewise", "mei")
_XML_ID = "http://www.w3.org/XML/1998/namespace id"
# Local name of an element (or `@attribute`) -> what its number must be above.
_ABOVE_ZERO = {"divisions", "beat-type", "actual-notes", "normal-notes"}
_ATTRIBUTES = {
    "sound": ("tempo", "divisions"), "meterSig": ("unit",), "scoreDef": ("meter.unit", "midi.bpm", "ppq"),
    "staffDef": ("meter.unit", "ppq"), "tuplet": ("num", "numbase"), "tempo": ("midi.bpm", "mm"),
}  # fmt: skip


def read_score(path: str | Path) -> str:
    """The MusicXML or MEI of a file (UTF-8, UTF-16, or as its XML declaration says; also inside `.mxl`) as text.

    Raises:
        InputError: no such file, not a score, cut or damaged, too large, with doubled MEI ids, or with a beat type,
            division, tempo or number of repeats that no music has.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if reason := packed(path):
        raise InputError(f"{path.name}: {reason}")
    if path.suffix.lower() not in SCORE_SUFFIXES:
        raise InputError(f"{path.name}: {path.suffix or 'no suffix'} is not a score; give {', '.join(SCORE_SUFFIXES)}")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name}: has more than {LARGEST >> 20} MB; give one movement a file")
    content = path.read_bytes()
    if path.suffix.lower() == ".mxl" or content[:4] == b"PK\x03\x04":
        content = _unpack(content, path.name)
    reader = _Strict(path.name)
    reader.read(content)
    return _decode(content, reader.encoding, path.name)


def _unpack(content: bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if len(members) > _MOST_MEMBERS or sum(member.file_size for member in members.values()) > LARGEST:
                raise InputError(f"{name}: expands to more than {LARGEST >> 20} MB or {_MOST_MEMBERS} files")
            root = None
            if "META-INF/container.xml" in members:
                found = _Strict(name, roots=("container",))
                found.read(archive.read("META-INF/container.xml"))
                root = next(iter(found.root_files), None)
            if root not in members:
                scores = [m for m in members if m.lower().endswith((".xml", ".musicxml")) and "META-INF" not in m]
                if root is not None or len(scores) != 1:
                    raise InputError(f"{name}: not a readable score: the archive names no score inside; export it anew")
                root = scores[0]
            return archive.read(root)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: not a readable score: a damaged archive ({reason}); export it anew") from None


def _decode(content: bytes, declared: str | None, name: str) -> str:
    if content[:3] == b"\xef\xbb\xbf":
        encoding = "utf-8-sig"
    elif content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif content[:2] in (b"\x00<", b"<\x00"):
        encoding = "utf-16-be" if content[:1] == b"\x00" else "utf-16-le"
    else:
        encoding = declared or "utf-8"
    try:
        text = content.decode(encoding)
    except (LookupError, UnicodeError) as error:
        raise InputError(f"{name}: not readable in its encoding {encoding!r} ({error})") from None
    # The engraver goes by the declaration and knows few encodings; a document type is of no use to it.
    return re.sub(r"^\s*<\?xml[^>]*\?>", '<?xml version="1.0" encoding="UTF-8"?>', text, count=1)


class _Strict:
    """One pass over a document by a conforming parser."""

    def __init__(self, name: str, roots: tuple[str, ...] = _ROOTS) -> None:
        self.name, self.roots = name, roots
        self.encoding: str | None = None
        self.path: list[str] = []
        self.ids: set[str] = set()
        self.root_files: list[str] = []
        self.text = ""

    def read(self, content: bytes) -> None:
        if not content.strip():
            raise InputError(f"{self.name}: not a readable score: the file is empty")
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.XmlDeclHandler = self._declaration
        parser.EntityDeclHandler = self._entity
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._characters
        self.parser = parser
        try:
            parser.Parse(content, True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            code = getattr(error, "code", None)
            ends = code in (3, 5) or (code == 6)  # no element found, unclosed token, partial character
            words = "the XML ends early: the file was cut" if ends else f"damaged XML ({error})"
            where = f" at line {error.lineno}" if isinstance(error, expat.ExpatError) else ""
            said = f"{words}{where if ends else ''}; export it anew"
            raise InputError(f"{self.name}: not a readable score: {said}") from None

    def refuse(self, words: str) -> None:
        line = self.parser.CurrentLineNumber
        raise InputError(f"{self.name}: line {line}: {words}; mend it in a notation program and export it anew")

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        self.encoding = encoding

    def _entity(self, name: str, *_: object) -> None:
        self.refuse(f"declares the entity {name!r}, which scores are not allowed to")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(" ")[2]
        if not self.path and tag not in self.roots:
            raise InputError(f"{self.name}: not a readable score: the document is <{tag}>, not MusicXML or MEI")
        self.path.append(tag)
        self.text = ""
        if len(self.path) > DEEPEST:
            self.refuse(f"more than {DEEPEST} elements inside each other")
        if tag == "rootfile" and attributes.get("full-path"):
            self.root_files.append(attributes["full-path"])
        for key in _ATTRIBUTES.get(tag, ()):
            if key in attributes and not (tag == "tuplet" and self.path[0] != "mei"):
                self._positive(f"{tag}@{key}", attributes[key])
        if tag == "repeat" and "times" in attributes:
            times = attributes["times"].strip()
            if not times.isdecimal() or int(times) > MOST_REPEATS:
                self.refuse(f"a repeat of {times!r} times (up to {MOST_REPEATS} are played)")
        if self.path[0] == "mei" and _XML_ID in attributes:
            if attributes[_XML_ID] in self.ids:
                self.refuse(f"the id {attributes[_XML_ID]!r} is given to two elements")
            self.ids.add(attributes[_XML_ID])

    def _characters(self, text: str) -> None:
        if len(self.text) < 100:
            self.text += text

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(" ")[2]
        if self.path[0] != "mei":
            if tag in _ABOVE_ZERO:
                self._positive(tag, self.text)
            elif tag == "duration":
                self._number(tag, self.text, 0.0)
            elif tag == "beats" and not re.fullmatch(r"[\s\d+]*[1-9][\s\d+]*", self.text):
                self.refuse(f"beats {self.text.strip()!r} in a bar")
        self.path.pop()
        self.text = ""

    def _positive(self, what: str, text: str) -> None:
        if self._number(what, text, 0.0) == 0:
            self.refuse(f"{what} is 0")

    def _number(self, what: str, text: str, least: float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= 1e9:
            self.refuse(f"{what} is {text.strip()!r}, not a number that music has")
        return value
