"""SPICE netlists in: hierarchical `.subckt`, continuation lines, parameters; HSPICE/Cadence, Spectre-exported,
ngspice/Magic and CDL spellings.

`read_spice` parses a file to a `Netlist` of cells; `flatten.py` expands the hierarchy. Every error names file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from counterpoint.common.data.importing import require_file
from counterpoint.common.errors import InputError
from counterpoint.graphs.circuits.elements import ELEMENT_KINDS, Element, NetlistError, parse_element, split_card

# Cards that carry simulation, not structure.
_IGNORED = {
    "temp", "tran", "ac", "dc", "op", "print", "plot", "probe", "save", "measure", "meas", "ic",
    "nodeset", "control", "endc", "end", "title", "lib", "endl", "connect", "alter", "data", "enddata", "pz", "noise",
    "width", "protect", "unprotect", "prot", "unprot", "csparam", "func", "simulator", "scale", "if", "else", "endif",
}  # fmt: skip

_SPECTRE_WORDS = ("subckt", "ends", "parameters")  # Spectre writes them without a dot


@dataclass
class Cell:
    """A `.subckt` with its ports, parameter defaults and elements; the top level of a file is the cell named ''."""

    name: str
    ports: tuple[str, ...] = ()
    params: dict[str, str] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)
    line: int = 0
    names: dict[str, int] = field(default_factory=dict)
    """Line of each element by its lower-case name."""


@dataclass
class Netlist:
    """All cells of a file, by lower-case name, and what the file asked for that could not be found."""

    path: str
    cells: dict[str, Cell]
    params: dict[str, str]
    models: dict[str, str]
    globals: tuple[str, ...]
    missing_includes: tuple[str, ...]
    ignored: dict[str, int]
    notes: tuple[str, ...] = ()
    root: Path | None = None
    scale: str = "1"
    """Text of `.option scale`: the unit in which the sizes of devices are written, in metres."""

    def cell(self, name: str) -> Cell | None:
        return self.cells.get(name.lower())

    def tops(self) -> list[str]:
        """Names of the cells that no other cell of this file instantiates, in file order."""
        used = {e.model.lower() for cell in self.cells.values() for e in cell.elements if e.kind == "instance"}
        return [cell.name for key, cell in self.cells.items() if key and key not in used]


def read_spice(path: str | Path, allow_outside: bool = False) -> Netlist:
    """Parse a SPICE netlist (`.sp`, `.spice`, `.cdl`, `.cir`, `.ckt`).

    Understood: `*`, `//`, `$` and `;` comments; `+` and backslash continuation; `.subckt`/`.ends` (nested names in any
    case), `.param`, `.model`, `.global`, `.option scale`, `.include` of files that exist; CDL's `/` before the cell
    name; blanks round `=`; quoted expressions; Spectre's `subckt`, `ends`, `parameters` and nodes in brackets. Cards
    that only steer a simulation are counted in `Netlist.ignored`. A transistor written as `X` (sky130) stays an
    instance of an undefined cell, which `flatten` takes as a device.

    Only files of the netlist's own folder and below are included, any with `allow_outside`.

    Raises `NetlistError` naming file and line.
    """
    path = Path(path)
    netlist = Netlist(str(path), {"": Cell("")}, {}, {}, (), (), {}, root=None if allow_outside else path.parent)
    _parse_file(path, netlist, [netlist.cells[""]], seen=(path.resolve(),))
    if not any(cell.elements for cell in netlist.cells.values()):
        raise NetlistError(path, 1, "no device or instance was found; give a SPICE netlist")
    return netlist


def _read(path: Path) -> str:
    require_file(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an existing netlist file") from None
    if "\x00" in text:
        raise InputError(f"{path}: is a binary file; give a text netlist")
    return text


def included_file(path: Path, rest: str, root: Path | None) -> Path:
    """The file that `.include rest` in `path` means; with a `root` one inside of that folder, whatever links say."""
    target = path.parent / rest.strip().strip("'\"")
    if root is not None and target.exists() and not target.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{path}: includes {rest.strip()}, which lies outside of the netlist's folder; copy it there, or import "
            "with --allow_outside"
        )
    return target


def self_contained(
    path: Path, seen: tuple[Path, ...] = (), allow_outside: bool = False, root: Path | None = None
) -> str:
    """The netlist's text with the files that it includes, where they exist, in their places."""
    root = None if allow_outside else root or path.parent
    lines = []
    for line in _read(path).splitlines():
        match = re.match(r"\s*\.inc(?:lude)?\s+(.+)", line, re.IGNORECASE)
        target = included_file(path, match.group(1), root) if match else None
        if target is not None and target.is_file() and target.resolve() not in (*seen, path.resolve()):
            inner = self_contained(target, (*seen, path.resolve()), allow_outside, root)
            lines += [f"* from {target.name}:", inner.rstrip("\n"), f"* end of {target.name}"]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _parse_file(path: Path, netlist: Netlist, stack: list[Cell], seen: tuple[Path, ...]) -> None:
    """Add the cards of a file to the innermost open cell of `stack`; `seen` are the files that are being read."""
    text, depth = _read(path), len(stack)
    in_control = False
    for line, card in _cards(path, text):
        head = card.split(None, 1)[0]
        if re.match(r"simulator\s+lang\s*=\s*spectre", card, re.I):
            raise NetlistError(path, line, "is in Spectre's own language; export it as SPICE (hspiceD or CDL)")
        if head.lower() in (".control", ".endc"):
            in_control = head.lower() == ".control"
            continue
        if in_control:
            continue
        if head.startswith(".") or head.lower() in _SPECTRE_WORDS:
            _directive(path, line, head.removeprefix(".").lower(), card[len(head) :].strip(), netlist, stack, seen)
        elif line == 1 and (head[0].lower() not in "rclmqdxjvi" or len(card.split()) < 4):
            continue  # a deck's first line is its title; a bare list of cards has a whole card there
        elif head[0].lower() in ELEMENT_KINDS:
            try:
                _add(path, parse_element(path, line, card), stack[-1])
            except NetlistError:
                if line > 1:
                    raise
                netlist.notes += (f"line 1 is taken as the title: {card}",)  # "My inverter, first version"
        else:
            raise NetlistError(path, line, f"{head!r} starts no known SPICE card; expected a device, X or a dot card")
    if len(stack) > depth:
        raise NetlistError(path, stack[-1].line, f".subckt {stack[-1].name} has no .ends; the file may be truncated")


def _add(path: Path, element: Element, cell: Cell) -> None:
    """Put an element into its cell, where its name must be the only one of its kind."""
    key = element.name.lower()
    if key in cell.names:
        where = f"cell {cell.name!r}" if cell.name else "the top level"
        first = cell.names[key]
        raise NetlistError(path, element.line, f"{element.name} is named twice in {where} (first in line {first})")
    cell.names[key] = element.line
    cell.elements.append(element)


def _cards(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first physical line, comments dropped and continuations joined."""
    number, parts = 0, []
    joined = False  # the previous physical line ended in a backslash
    for line, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if not stripped or stripped.startswith(("*", "//")):
            continue
        stripped = re.split(r"\s\$(?![\[\w]*=)|\s;|\s//", " " + stripped)[0].strip()
        if not stripped:
            continue
        backslash = stripped.endswith("\\")
        body = stripped.rstrip("\\").strip()
        if not body:  # a lone backslash says nothing
            continue
        if body.startswith("+") or joined:
            if not parts:
                raise NetlistError(path, line, "a continuation line ('+') follows no card")
            parts.append(body.lstrip("+").strip())
        else:
            if parts:
                yield number, " ".join(parts)
            number, parts = line, [body]
        joined = backslash
    if parts:
        yield number, " ".join(parts)


def _directive(path, line, name, rest, netlist: Netlist, stack: list[Cell], seen) -> None:
    if name in ("subckt", "macro"):
        tokens, params = split_card(path, line, rest.replace("(", " ").replace(")", " "))
        if not tokens:
            raise NetlistError(path, line, ".subckt has no name")
        if tokens[0].lower() in netlist.cells:
            first = netlist.cells[tokens[0].lower()]
            raise NetlistError(path, line, f"cell {tokens[0]!r} is defined twice (first in line {first.line})")
        cell = Cell(tokens[0], tuple(t for t in tokens[1:] if t != "/"), params, [], line)
        if len({port.lower() for port in cell.ports}) < len(cell.ports):
            raise NetlistError(path, line, f"cell {cell.name!r} names a port twice")
        netlist.cells[cell.name.lower()] = cell
        stack.append(cell)
    elif name in ("ends", "eom"):
        if len(stack) == 1:
            raise NetlistError(path, line, ".ends without .subckt")
        if rest and rest.split()[0].lower() != stack[-1].name.lower():
            # Simulators do not mind, and hand-edited netlists have it often.
            netlist.notes += (f"line {line}: .ends {rest.split()[0]} closes .subckt {stack[-1].name}",)
        stack.pop()
    elif name in ("param", "parameter", "parameters"):
        tokens, params = split_card(path, line, rest)
        if tokens:
            raise NetlistError(path, line, f".param needs name=value pairs, got {tokens[0]!r}")
        (stack[-1].params if len(stack) > 1 else netlist.params).update(params)
    elif name == "model":
        tokens, _ = split_card(path, line, rest.replace("(", " ").replace(")", " "))
        if len(tokens) < 2:
            raise NetlistError(path, line, ".model needs a name and a type")
        netlist.models[tokens[0].lower()] = tokens[1].lower()
    elif name == "global":
        netlist.globals += tuple(rest.split())
    elif name in ("include", "inc"):
        target = included_file(path, rest, netlist.root)
        if target.resolve() in seen:
            raise NetlistError(path, line, f".include {rest} includes itself")
        if target.is_file():
            _parse_file(target, netlist, stack, (*seen, target.resolve()))
        else:
            netlist.missing_includes += (rest.strip().strip("'\""),)
    elif name in ("option", "options", "opt"):
        netlist.scale = split_card(path, line, rest)[1].get("scale", netlist.scale)
        netlist.ignored["option"] = netlist.ignored.get("option", 0) + 1
    elif name in _IGNORED:
        netlist.ignored[name] = netlist.ignored.get(name, 0) + 1
    else:
        raise NetlistError(path, line, f"unknown card .{name}")
