"""One card of a SPICE netlist: its nets, model, value, parameters, and what controls it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from counterpoint.common.errors import InputError

_TWO_TERMINAL = {"r": "resistor", "c": "capacitor", "l": "inductor"}
ELEMENT_KINDS = {**_TWO_TERMINAL, "m": "mosfet", "q": "bjt", "d": "diode", "x": "instance", "v": "source",
                 "i": "source", "e": "source", "f": "source", "g": "source", "h": "source", "b": "source", "j": "jfet",
                 "k": "coupling", "t": "line", "s": "switch", "w": "switch", "a": "codemodel"}  # fmt: skip
_PLAIN_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?[a-zA-Zµμ]*")
# What a source's card may hold beside its DC value, and the place of the value at time zero among a waveform's numbers.
_WAVEFORMS = {"pulse": 0, "sin": 0, "exp": 0, "sffm": 0, "am": 0, "pwl": 1}
_SOURCE_WORDS = {*_WAVEFORMS, "ac", "pat", "lfsr", "trnoise", "trrandom", "distof1", "distof2", "external", "portnum"}
_CONTROLLED = {"vcvs", "vccs", "cccs", "ccvs"}
# `M1 (d g s b) nfet w=1u`: Spectre's nodes; the word behind them, not the name's letter, says what the instance is.
_BRACKETED = re.compile(r"(\S+)\s*\(([^()]*)\)\s+([A-Za-z_]\w*)(\s.*)?$")
_PRIMITIVES = {"resistor": "r", "capacitor": "c", "inductor": "l", "vsource": "dc", "isource": "dc"}
_PROBE = re.compile(r"(?<![\w.])([vi])\(\s*([^\s(),]+)\s*(?:,\s*([^\s(),]+)\s*)?\)", re.IGNORECASE)


class NetlistError(InputError):
    """A netlist or parasitics file that cannot be understood; names the file and the line."""

    def __init__(self, path: Path | str, line: int, message: str):
        super().__init__(f"{path}, line {line}: {message}")
        self.path, self.line = str(path), line


@dataclass(frozen=True)
class Element:
    """One card of a cell: `M1 d g s b nmos w=1u l=0.15u`.

    `nets` are the card's nets in order, the controlling ones of an E, G or S last; `model` the model or sub-circuit
    name ('' for a plain R, C, L); `value` the text of a plain value (R, C, L, a source at rest, a gain, a coupling);
    `params` the text of `name=value` pairs (names in lower case); `controls` the elements of the same cell whose
    current (F, H, W) or flux (K) acts on this one.
    """

    name: str
    kind: str
    nets: tuple[str, ...]
    model: str
    value: str | None
    params: dict[str, str]
    line: int
    controls: tuple[str, ...] = ()


def split_card(path: Path | str, line: int, text: str) -> tuple[list[str], dict[str, str]]:
    """Plain tokens and `name=value` pairs (names in lower case) of a card."""
    text = re.sub(r"\s*=\s*", "=", text)
    tokens, params = [], {}
    for token in re.findall(r"""[^\s=]+=(?:'[^']*'|"[^"]*"|\{[^}]*\}|[^\s]+)?|'[^']*'|\{[^}]*\}|[^\s]+""", text):
        if "=" in token and not token.startswith(("'", "{")):
            name, _, value = token.partition("=")
            value = value.rstrip(",")
            if not name or not value:
                raise NetlistError(path, line, f"{token!r} is no name=value pair")
            params[name.lower().lstrip("$")] = value
        elif token.lower() != "params:":  # PSpice's word before the pairs
            tokens.append(token)
    return tokens, params


def parse_element(path: Path | str, line: int, card: str) -> Element:
    """The element that a card states. Raises `NetlistError` naming file and line."""
    bracketed = _BRACKETED.match(card)
    if bracketed and bracketed.group(3).lower() not in _SOURCE_WORDS | _CONTROLLED | {"dc", "poly"}:
        return _bracketed(path, line, *bracketed.groups(""))
    tokens, params = split_card(path, line, card)
    if not tokens or not card.startswith(tokens[0]):
        raise NetlistError(path, line, f"{card[:60]!r} is no device: its name holds '='")
    name, rest = tokens[0], tokens[1:]
    letter = name[0].lower()
    kind = ELEMENT_KINDS[letter]
    # CDL writes `$[model]` after a plain value and `$SUB=net` for a bulk terminal.
    cdl_model = next((t[2:-1] for t in rest if t.startswith("$[") and t.endswith("]")), "")
    rest = [t for t in rest if not t.startswith("$[")]

    def need(count: int, what: str) -> None:
        if len(rest) < count:
            raise NetlistError(path, line, f"{name} needs {what}, got {len(rest)} word(s) before its parameters")

    if kind == "instance":
        need(1, "nets and a cell name")
        return Element(name, kind, tuple(t for t in rest[:-1] if t != "/"), rest[-1], None, params, line)
    if kind in ("mosfet", "bjt", "jfet"):
        need(4, "at least three nets and a model")
        # A Q or J may give its area, and any of them the word OFF, behind the model.
        while len(rest) > 4 and (rest[-1].lower() == "off" or (kind != "mosfet" and _PLAIN_NUMBER.fullmatch(rest[-1]))):
            rest.pop()
        if _PLAIN_NUMBER.fullmatch(rest[-1]):
            raise NetlistError(path, line, f"{name} has the number {rest[-1]} for a model; write sizes as w=, l=")
        return Element(name, kind, tuple(rest[:-1]), rest[-1], None, params, line)
    if kind == "diode":
        need(3, "two nets and a model")
        return Element(name, kind, tuple(rest[:2]), rest[2], None, params, line)
    if letter in _TWO_TERMINAL:
        need(2, "two nets")
        return _two_terminal(path, line, name, rest, params, cdl_model)
    if kind == "coupling":
        numbers = [t for t in rest if _is_value(t)] or [params.get("k", "")]
        inductors = [t for t in rest if t.lower().startswith("l")]
        if len(inductors) < 2 or not numbers[0]:
            raise NetlistError(path, line, f"{name} needs two inductors and a coupling")
        return Element(name, kind, (), "", numbers[0], {}, line, tuple(inductors))
    if kind == "codemodel":
        words = [w for t in rest for w in re.split(r"[\[\]()]+", t) if w and not w.startswith("%")]
        if len(words) < 2:
            raise NetlistError(path, line, f"{name} needs nets and a model")
        nets = tuple(w.lstrip("~") for w in words[:-1] if w.lower() != "null")
        return Element(name, kind, nets, words[-1], None, params, line)
    # Everywhere below brackets and commas only part words: `E1 y 0 (a,b) 10`, `V1 a 0 pulse(0 1.8)`.
    rest = [w for t in rest for w in ([t] if t[0] in "'\"{" else re.split(r"[(),]+", t)) if w]
    if kind == "switch" and letter == "w" and not {"n", "l"} & params.keys():
        need(4, "two nets, a source and a model")
        return Element(name, kind, tuple(rest[:2]), rest[3], None, params, line, (rest[2],))
    if kind == "switch" and letter == "s":
        need(5, "four nets and a model")
        return Element(name, kind, tuple(rest[:4]), rest[4], None, params, line)
    if kind in ("line", "switch"):  # HSPICE's W is a line of any number of conductors
        need(4, "four nets")
        return Element(name, "line", tuple(rest[: 4 if letter == "t" else None]), "", None, params, line)
    need(2, "two nets")
    return _source(path, line, name, rest, params, card)


def _bracketed(path, line: int, name: str, nodes: str, master: str, rest: str) -> Element:
    extra, params = split_card(path, line, rest)
    nets, key = tuple(nodes.split()), _PRIMITIVES.get(master.lower())
    if not nets or extra:
        raise NetlistError(path, line, f"{name} needs nodes in its brackets and name=value pairs behind {master}")
    if key is None:
        return Element(name, "instance", nets, master, None, params, line)
    if len(nets) < 2:
        raise NetlistError(path, line, f"{name} needs two nets")
    kind = _TWO_TERMINAL.get(key, "source")
    return Element(name, kind, nets[:2], "", params.pop(key, None), params if kind != "source" else {}, line)


def _is_value(token: str) -> bool:
    return re.match(r"[+\-.\d'{]", token) is not None


def _two_terminal(path, line: int, name: str, rest: list[str], params: dict[str, str], cdl_model: str) -> Element:
    """R, C or L: the first number is its value (temperature coefficients may follow), another word its model."""
    letter = name[0].lower()
    model, extra = cdl_model, rest[2:]
    given = [v for key in (letter, "value") if (v := params.pop(key, None)) is not None]
    given += [t for t in extra if _is_value(t)]
    if not model:
        model = next((t for t in extra if not _is_value(t)), "")
    if not given and not model:
        raise NetlistError(path, line, f"{name} has neither a value nor a model")
    value = given[0] if given else None
    return Element(name, _TWO_TERMINAL[letter], tuple(rest[:2]), model, value, params, line)


def _source(path, line: int, name: str, rest: list[str], params: dict[str, str], card: str) -> Element:
    """V and I with their value at rest; E, F, G, H and B with their gain and what controls them.

    The controls of an expression (`value={v(a,b)*i(V1)}`) are the nets and sources that it probes; the expression
    itself is not kept.
    """
    letter, nets, tail = name[0].lower(), rest[:2], rest[2:]
    copies = {"m": params["m"]} if "m" in params else {}
    if letter in "vi":
        return Element(name, "source", tuple(nets), "", params.get("dc") or _at_rest(tail), copies, line)
    probes = _PROBE.findall(card)
    if probes or letter == "b" or params.keys() & {"value", "vol", "cur", "v", "i", "table"}:
        controls = tuple(dict.fromkeys(a for what, a, _ in probes if what in "iI"))
        probed = dict.fromkeys(net for what, *pair in probes if what in "vV" for net in pair if net)
        given = next((params[key] for key in ("vol", "cur", "value", "v", "i") if key in params), None)
        value = None if probes or letter == "b" else given
        return Element(name, "source", (*nets, *probed), "", value, copies, line, controls)
    dimensions = 1
    if tail and tail[0].lower() in _CONTROLLED:
        tail = tail[1:]
    polynomial = bool(tail) and tail[0].lower() == "poly"
    if polynomial:
        if len(tail) < 2 or not tail[1].isdigit() or not 0 < int(tail[1]) < 100:
            raise NetlistError(path, line, f"{name}: POLY needs its number of controls, as in POLY(2)")
        dimensions, tail = int(tail[1]), tail[2:]
    count = dimensions * (2 if letter in "eg" else 1)
    controls = tail[:count]
    if len(controls) < count:
        what = "controlling nets" if letter in "eg" else "controlling sources"
        raise NetlistError(path, line, f"{name} needs {count} {what}, got {len(controls)}")
    value = params.get("gain") or next(iter(tail[count:]), None)
    value = None if polynomial else value
    if letter in "eg":
        return Element(name, "source", (*nets, *controls), "", value, copies, line)
    return Element(name, "source", tuple(nets), "", value, copies, line, tuple(controls))


def _at_rest(tail: Sequence[str]) -> str | None:
    """The text of a source's DC value: after `dc`, else the first word, else where its waveform starts."""
    words = [t.lower() for t in tail]
    if "dc" in words[:-1]:
        return tail[words.index("dc") + 1]
    if words and words[0] not in _SOURCE_WORDS:
        return tail[0]
    wave = next((i for i, word in enumerate(words) if word in _WAVEFORMS), None)
    if wave is None:
        return None
    place = wave + 1 + _WAVEFORMS[words[wave]]
    return tail[place] if place < len(tail) and _is_value(tail[place]) else None
