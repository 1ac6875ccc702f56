"""Extracted parasitics in: SPEF (IEEE 1481) and DSPF/SPF.

Both give, per net, the capacitance to ground and the coupling capacitances to other nets, in farad.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from counterpoint.common.errors import InputError
from counterpoint.graphs.circuits.numbers import parse_number
from counterpoint.graphs.circuits.spice import NetlistError

_UNITS = {"C_UNIT": {"FF": 1e-15, "PF": 1e-12, "NF": 1e-9, "UF": 1e-6, "F": 1.0},
          "R_UNIT": {"OHM": 1.0, "KOHM": 1e3, "MOHM": 1e6}}  # fmt: skip


@dataclass
class Parasitics:
    """What an extraction says of a design.

    `ground[net]` and `coupling[(net_a, net_b)]` (names in sorted order) are sums in farad over all sub-nodes;
    `resistance[net]` is the sum of the net's resistors in ohm (its total wire resistance, not a path's);
    `pins[net]` lists `instance:pin`; `nodes` gives the net of every node that the file names, `total[net]` the file's
    own total, for checking. Names have `/` between levels of the hierarchy, whatever the file's divider is.
    """

    path: str
    design: str
    ground: dict[str, float] = field(default_factory=dict)
    coupling: dict[tuple[str, str], float] = field(default_factory=dict)
    resistance: dict[str, float] = field(default_factory=dict)
    pins: dict[str, list[str]] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def nets(self) -> list[str]:
        return list(self.total)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an existing parasitics file") from None
    yield from enumerate(text.splitlines(), 1)


def _number(path: Path, line: int, text: str, what: str) -> float:
    try:
        # SPEF may give three corners as min:typ:max; the middle one is the typical.
        parts = text.split(":")
        value = float(parts[len(parts) // 2])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise NetlistError(path, line, f"{what} {text!r} is not a number")
    return value


def _word(path: Path, line: int, words: list[str], what: str) -> str:
    """The second word of a line, which has to be there."""
    if len(words) < 2:
        raise NetlistError(path, line, f"{words[0]} names no {what}")
    return words[1]


def read_spef(path: str | Path) -> Parasitics:
    """Read a SPEF file: units, `*NAME_MAP`, `*D_NET` with `*CONN`, `*CAP` (ground: 3 fields, coupling: 4), `*RES`.

    A coupling capacitor is listed under both of its nets; it is counted once. Where the two listings differ, the
    first is kept and a note says so. A coupling to a net that no `*D_NET` describes is an error: a file that was cut
    between two nets looks like that. Raises `NetlistError` naming file and line.
    """
    path = Path(path)
    out = Parasitics(str(path), path.stem)
    units = {"R_UNIT": 1.0}
    names: dict[str, str] = {}
    net_of_node = out.nodes
    couplings: list[tuple[str, str, float, int]] = []
    section, net, net_line = "", None, 0
    saw_header = False

    def expand(token: str) -> str:
        head, sep, tail = token.partition(delimiter)
        if re.fullmatch(r"\*\d+", head):
            if head not in names:
                raise NetlistError(path, line, f"{head} is not in the *NAME_MAP")
            head = names[head]
        else:
            head = plain(head)
        return head + sep + tail

    def plain(name: str) -> str:
        return name.replace("\\", "").replace(divider, "/")

    delimiter, divider = ":", "/"
    for line, raw in _lines(path):
        text = raw.split("//")[0].strip()
        if not text:
            continue
        words = text.split()
        key = words[0]
        if key == "*SPEF":
            saw_header = True
        elif key == "*DESIGN":
            out.design = _word(path, line, words, "design").strip('"')
        elif key == "*DELIMITER":
            delimiter = _word(path, line, words, "character")
        elif key == "*DIVIDER":
            divider = _word(path, line, words, "character")
        elif key in ("*C_UNIT", "*R_UNIT"):
            table = _UNITS[key[1:]]
            if len(words) != 3 or words[2].upper() not in table:
                raise NetlistError(path, line, f"{key} {' '.join(words[1:])!r} is not one of {', '.join(table)}")
            units[key[1:]] = _number(path, line, words[1], key) * table[words[2].upper()]
        elif key in ("*NAME_MAP", "*PORTS", "*CONN", "*CAP", "*RES", "*INDUC"):
            section = key[1:]
        elif key in ("*D_NET", "*R_NET"):
            if net is not None:
                raise NetlistError(path, line, f"*D_NET begins inside net {net!r} of line {net_line}: *END is missing")
            if len(words) < 3:
                raise NetlistError(path, line, "*D_NET needs a net and its total capacitance")
            if "C_UNIT" not in units:
                raise NetlistError(path, line, "*D_NET comes before any *C_UNIT, so capacitances have no unit")
            net, net_line, section = expand(words[1]), line, "D_NET"
            if net in out.total:
                raise NetlistError(path, line, f"net {net!r} is described twice")
            out.total[net] = _number(path, line, words[2], "total capacitance") * units["C_UNIT"]
            out.ground[net] = out.resistance[net] = 0.0
            net_of_node[net] = net
        elif key == "*END":
            net, section = None, ""
        elif section == "NAME_MAP" and re.fullmatch(r"\*\d+", key):
            names[key] = plain(_word(path, line, words, "net or instance"))
        elif net is not None and section == "CONN" and key in ("*P", "*I", "*N"):
            node = expand(_word(path, line, words, "node"))
            net_of_node[node] = net
            if key == "*I":
                out.pins.setdefault(net, []).append(node)
        elif net is not None and section == "CAP":
            if len(words) == 3:
                node = expand(words[1])
                net_of_node.setdefault(node, net)
                out.ground[net] += _number(path, line, words[2], "capacitance") * units["C_UNIT"]
            elif len(words) == 4:
                net_of_node.setdefault(expand(words[1]), net)
                value = _number(path, line, words[3], "capacitance") * units["C_UNIT"]
                couplings.append((expand(words[1]), expand(words[2]), value, line))
            else:
                raise NetlistError(path, line, f"a *CAP entry has 3 or 4 fields, this one {len(words)}")
        elif net is not None and section == "RES":
            if len(words) < 4:
                raise NetlistError(path, line, f"a *RES entry has 4 fields, this one {len(words)}")
            net_of_node.setdefault(expand(words[1]), net)
            net_of_node.setdefault(expand(words[2]), net)
            out.resistance[net] += _number(path, line, words[3], "resistance") * units["R_UNIT"]
    if not saw_header:
        raise NetlistError(path, 1, "has no *SPEF header; give a SPEF (IEEE 1481) file")
    if net is not None:
        raise NetlistError(path, net_line, f"net {net!r} has no *END; the file may be truncated")
    if not out.total:
        raise NetlistError(path, line, "the file ends before any *D_NET; it may be truncated")
    _add_couplings(path, out, couplings, net_of_node, delimiter)
    return out


def _add_couplings(path, out: Parasitics, couplings, net_of_node: dict[str, str], delimiter: str) -> None:
    seen: dict[frozenset[str], float] = {}
    differing = 0
    for a, b, value, line in couplings:
        pair = frozenset((a, b))
        if pair in seen:
            differing += abs(seen[pair] - value) > 0.01 * max(abs(seen[pair]), 1e-21)
            continue
        seen[pair] = value
        net_a, net_b = (net_of_node.get(n) or net_of_node.get(n.rpartition(delimiter)[0]) for n in (a, b))
        if net_a is None or net_b is None:
            missing = a if net_a is None else b
            raise NetlistError(
                path, line, f"a coupling ends at {missing!r}, whose net no *D_NET describes; the file may be truncated"
            )
        if net_a != net_b:
            key = (net_a, net_b) if net_a < net_b else (net_b, net_a)
            out.coupling[key] = out.coupling.get(key, 0.0) + value
    if differing:
        out.notes.append(f"{differing} coupling capacitor(s) differ between their two listings; the first was kept")


def read_dspf(path: str | Path) -> Parasitics:
    """Read a DSPF/SPF file: `*|NET`, `*|P`, `*|I`, `*|S`, `*|GROUND_NET`, and the C and R cards between them.

    The instance section (the devices) is left to `read_spice`, which reads the same file: `nodes` then says on which
    net each of a device's nodes lies. Raises `NetlistError` naming file and line.
    """
    path = Path(path)
    out = Parasitics(str(path), path.stem)
    ground, delimiter, divider = {"0"}, ":", "/"
    net: str | None = None
    cards: list[tuple[int, list[str]]] = []
    saw_header, open_line = False, 0

    def plain(name: str) -> str:
        return name.replace("\\", "").replace(divider, "/")

    for line, raw in _lines(path):
        text = raw.strip()
        if text.startswith("*|"):
            words = text.replace("*|", "", 1).strip().replace("(", " ").replace(")", " ").split()
            if not words:
                continue
            key = words[0].upper()
            if key == "DSPF":
                saw_header = True
            elif key == "DESIGN" and len(words) > 1:
                out.design = words[1].strip('"')
            elif key == "GROUND_NET":
                ground.update(map(plain, words[1:]))
            elif key == "DELIMITER" and len(words) > 1:
                delimiter = words[1].strip('"')
            elif key == "DIVIDER" and len(words) > 1:
                divider = words[1].strip('"')
            elif key == "NET":
                if len(words) < 3:
                    raise NetlistError(path, line, "*|NET needs a net and its total capacitance")
                net = plain(words[1])
                if net in out.total:
                    raise NetlistError(path, line, f"net {net!r} is described twice")
                out.total[net] = _si(path, line, words[2])
                out.ground[net] = out.resistance[net] = 0.0
                out.nodes[net] = net
            elif key in ("P", "I", "S"):
                if net is None:
                    raise NetlistError(path, line, f"*|{key} stands before any *|NET")
                node = plain(_word(path, line, ["*|" + key, *words[1:]], "node"))
                out.nodes[node] = net
                if key == "I":
                    out.pins.setdefault(net, []).append(node)
        elif re.match(r"\*+\s*instance section", text, re.IGNORECASE):
            net = None  # from here on C and R are devices
        elif text.startswith("+") and net is not None and cards:
            cards[-1][1].extend(text[1:].split())
        elif text[:1].lower() in ("c", "r") and net is not None:
            cards.append((line, text.split("$")[0].split()))
        elif text.lower().startswith((".subckt", ".ends")):
            open_line = line if text.lower().startswith(".subckt") else 0
    if not saw_header:
        raise NetlistError(path, 1, "has no *|DSPF header; give a DSPF/SPF file")
    if open_line:
        raise NetlistError(path, open_line, ".subckt has no .ends; the file may be truncated")
    if not out.total:
        raise NetlistError(path, 1, "describes no *|NET; the file may be truncated")
    for line, words in cards:
        if len(words) < 4:
            raise NetlistError(path, line, f"{words[0]} needs two nodes and a value")
        _add_card(path, line, words, out, ground, delimiter, plain)
    return out


def _add_card(path: Path, line: int, words: list[str], out: Parasitics, ground: set[str], delimiter, plain) -> None:
    name, a, b, value = words[0], plain(words[1]), plain(words[2]), words[3]
    nets = [out.nodes.get(n) or out.nodes.get(n.rpartition(delimiter)[0]) for n in (a, b)]
    amount = _si(path, line, value)
    if name[0].lower() == "r":
        if nets[0] is not None and nets[0] == nets[1]:
            out.resistance[nets[0]] += amount
        return
    grounded = [n in ground for n in (a, b)]
    if any(grounded):
        owner = nets[0] if grounded[1] else nets[1]
        if owner is not None:
            out.ground[owner] += amount
    elif None in nets:
        raise NetlistError(path, line, f"{name} ends at node {a if nets[0] is None else b!r} of no *|NET")
    elif nets[0] != nets[1]:
        key = tuple(sorted(nets))
        out.coupling[key] = out.coupling.get(key, 0.0) + amount


def _si(path: Path, line: int, text: str) -> float:
    try:
        value = parse_number(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise NetlistError(path, line, f"{text!r} is not a number with an optional SPICE suffix")
    return value
