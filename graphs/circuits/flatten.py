"""Expand a hierarchical netlist to one flat list of devices and capacitors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from counterpoint.common.errors import InputError
from counterpoint.graphs.circuits.numbers import value_of_expression
from counterpoint.graphs.circuits.spice import Cell, Element, Netlist, NetlistError

# What a leaf's model name says of its kind: sky130, ASAP7, generic Cadence names.
_MODEL_KINDS = (
    ("pmos", re.compile(r"(^|_)p(fet|mos|ch|lvt|hvt|ulvt)?(_|$)|pfet|pmos|pch|plvt|phvt|pulvt|plplvt")),
    ("nmos", re.compile(r"(^|_)n(fet|mos|ch|lvt|hvt|ulvt)?(_|$)|nfet|nmos|nch|nlvt|nhvt|nulvt|nlplvt|native")),
    ("resistor", re.compile(r"res|rpoly|rppoly|rhigh|rnwell|rupoly")),
    ("capacitor", re.compile(r"cap|mim|mom|varactor|cfmom|crtmom|momcap")),
    ("diode", re.compile(r"diode|ndio|pdio|^d(n|p)")),
    ("bjt", re.compile(r"npn|pnp|bjt")),
    ("inductor", re.compile(r"ind|spiral")),
)
MOST_DEVICES = 20_000_000
"""A flat circuit of more would not fit into memory; a hierarchy of a few lines can name 10^9."""
DEEPEST = 64
"""Levels of hierarchy; a cell that contains itself has no end."""
# Sizes that `.option scale` multiplies, once and twice.
_LENGTHS, _AREAS = ("w", "l", "pd", "ps", "sa", "sb", "sd"), ("ad", "as")
KINDS = ("nmos", "pmos", "resistor", "capacitor", "inductor", "diode", "bjt", "cell", "source", "other")


@dataclass(frozen=True)
class Device:
    """A leaf of the design. `pins` pairs the terminal's name with its net; `params` are SI values."""

    name: str
    kind: str
    model: str
    pins: tuple[tuple[str, str], ...]
    params: dict[str, float]


@dataclass
class FlatCircuit:
    """A flat circuit: devices, two-terminal capacitors (net, net, farad) and which nets are ports or global."""

    name: str
    ports: tuple[str, ...]
    devices: list[Device] = field(default_factory=list)
    capacitors: list[tuple[str, str, float]] = field(default_factory=list)
    resistors: list[tuple[str, str, float]] = field(default_factory=list)
    globals: tuple[str, ...] = ()
    unresolved: dict[str, int] = field(default_factory=dict)
    scale: float = 1.0
    """`.option scale`; the devices' sizes are multiplied by it already."""

    @property
    def nets(self) -> list[str]:
        """All nets in order of first appearance."""
        seen = dict.fromkeys(self.ports)
        for device in self.devices:
            seen.update(dict.fromkeys(net for _, net in device.pins))
        for a, b, _ in self.capacitors:
            seen.update({a: None, b: None})
        return list(seen)


def flatten_netlist(netlist: Netlist, top: str | None = None, *, merge_subnodes: bool = True) -> FlatCircuit:
    """Expand `top` (the only uninstantiated cell when not given) down to its devices.

    Hierarchical names are joined by '/'. Parameters are evaluated with the instance's values over the cell's defaults
    over the file's `.param`. Nets are the same whatever their case, as in every SPICE; the first spelling stays. Plain
    capacitors and resistors (a value, no model) are kept apart from devices: in an
    extracted netlist they are the parasitics. With `merge_subnodes` the nodes `net.t3`, `net.n0`, which Magic's and
    other extractors' resistance networks add, are folded into `net`.

    Raises `InputError` when several cells could be the top, or the given one does not exist.
    """
    cell = _top_cell(netlist, top)
    count = _count(netlist, cell, {}, 0)
    if count > MOST_DEVICES:
        raise InputError(
            f"{netlist.path}: {cell.name or 'its top level'} expands to {count:,} devices; more than {MOST_DEVICES:,} "
            "are not flattened, name a smaller cell with --top"
        )
    scope = _scope(netlist.path, 0, netlist.params, {})
    flat = FlatCircuit(cell.name or "top", cell.ports, globals=netlist.globals, scale=_scale(netlist, scope))
    _expand(netlist, cell, "", {}, _scope(netlist.path, cell.line, cell.params, scope), flat, depth=0)
    return _merge_subnodes(flat) if merge_subnodes else flat


def _count(netlist: Netlist, cell: Cell, known: dict[str, int], depth: int) -> int:
    """Elements of a cell once expanded; each cell is counted once, however often it stands there."""
    key = cell.name.lower()
    if key in known:
        return known[key]
    if depth > DEEPEST:
        raise NetlistError(netlist.path, cell.line, f"cell {cell.name!r} instantiates itself")
    total = 0
    for element in cell.elements:
        child = netlist.cell(element.model) if element.kind == "instance" else None
        total += _count(netlist, child, known, depth + 1) if child is not None and child.elements else 1
    known[key] = total
    return total


def _scale(netlist: Netlist, scope: Mapping[str, float]) -> float:
    try:
        scale = value_of_expression(netlist.scale, scope)
    except (KeyError, ValueError):
        scale = 0.0
    if scale <= 0:
        raise InputError(f"{netlist.path}: .option scale={netlist.scale} is no positive number")
    return scale


def _top_cell(netlist: Netlist, top: str | None) -> Cell:
    if top is not None:
        cell = netlist.cell(top)
        if cell is None or not top:
            known = ", ".join(c.name for key, c in netlist.cells.items() if key)
            raise InputError(f"{netlist.path}: no cell {top!r}; its cells are: {known}")
        return cell
    if netlist.cells[""].elements:
        return netlist.cells[""]
    tops = netlist.tops()
    if not tops:
        raise InputError(f"{netlist.path}: every cell is part of another one, in a circle; name the top with --top")
    if len(tops) != 1:
        raise InputError(f"{netlist.path}: {len(tops)} cells could be the top ({', '.join(tops)}); name one with --top")
    return netlist.cells[tops[0].lower()]


def _scope(path: str, line: int, texts: Mapping[str, str], outer: Mapping[str, float]) -> dict[str, float]:
    """Evaluate parameters that may refer to each other in any order; text that is no number is left out."""
    scope = dict(outer)
    pending = dict(texts)
    while pending:
        progressed = False
        for name, text in list(pending.items()):
            try:
                scope[name] = value_of_expression(text, {k: v for k, v in scope.items() if k != name or name in outer})
            except KeyError:
                continue
            except ValueError as error:
                raise NetlistError(path, line, f"parameter {name}: {error}") from None
            del pending[name]
            progressed = True
        if not progressed:
            break
    return scope


def _expand(netlist, cell: Cell, prefix: str, net_map: Mapping[str, str], scope, flat: FlatCircuit, depth: int) -> None:
    if depth > DEEPEST:
        raise NetlistError(netlist.path, cell.line, f"cell {cell.name!r} instantiates itself")
    global_nets = {g.lower(): g for g in (*netlist.globals, "0")}
    spelling = {port.lower(): net_map.get(port.lower(), port) for port in cell.ports}

    def net(name: str) -> str:
        key = name.lower()
        if key not in spelling:
            spelling[key] = global_nets.get(key) or prefix + name
        return spelling[key]

    by_name = {e.name.lower(): e for e in cell.elements} if any(e.controls for e in cell.elements) else {}
    for element in cell.elements:
        nets = tuple(net(n) for n in element.nets)
        for name in element.controls:  # a current or a flux is known by the nets between which it runs
            if name.lower() not in by_name:
                where = f"cell {cell.name!r}" if cell.name else "the top level"
                raise NetlistError(
                    netlist.path, element.line, f"{element.name} is controlled by {name}, which {where} does not hold"
                )
            nets += tuple(net(n) for n in by_name[name.lower()].nets[:2])
        child = netlist.cell(element.model) if element.kind == "instance" else None
        # A cell without a body is a black box: its instance stays in the graph as a device of kind "cell".
        if child is not None and child.elements:
            if len(nets) != len(child.ports):
                raise NetlistError(
                    netlist.path, element.line,
                    f"{element.name} connects {len(nets)} nets to {child.name}, which has {len(child.ports)} ports",
                )  # fmt: skip
            own = _scope(netlist.path, element.line, element.params, scope)
            given = {k: own[k] for k in element.params if k in own}
            defaults = {k: text for k, text in child.params.items() if k not in given}
            inner = _scope(netlist.path, child.line, defaults, {**scope, **given})
            connected = dict(zip((port.lower() for port in child.ports), nets, strict=True))
            _expand(netlist, child, f"{prefix}{element.name}/", connected, inner, flat, depth + 1)
        else:
            _leaf(netlist, element, prefix, nets, scope, flat)


def _leaf(netlist: Netlist, element: Element, prefix: str, nets: tuple[str, ...], scope, flat: FlatCircuit) -> None:
    model, value_text = element.model, element.value
    is_parameter = model.lower() in scope and model.lower() not in netlist.models
    if element.kind in ("capacitor", "resistor", "inductor") and value_text is None and is_parameter:
        model, value_text = "", model  # `R1 a b rload`
    value = None if value_text is None else _value(netlist, element, value_text, scope, flat)
    if element.kind in ("capacitor", "resistor") and value is not None and not model:
        copies = _number(netlist, element, element.params.get("m", "1"), scope)
        if copies <= 0:
            raise NetlistError(netlist.path, element.line, f"{element.name}: m={copies:g} is no number of copies")
        if element.kind == "capacitor":
            flat.capacitors.append((nets[0], nets[1], value * copies))
        else:
            flat.resistors.append((nets[0], nets[1], value / copies))
        return
    # A device's parameters may name each other, as sky130's ad='int((nf+1)/2) * W/nf * 0.29' does.
    known = _scope(netlist.path, element.line, element.params, scope)
    params = {name: known[name] for name in element.params if name in known}
    for name in element.params.keys() - params.keys():
        _count_unresolved(flat, f"{model}.{name}")
    params |= {name: params[name] * flat.scale for name in _LENGTHS if name in params}
    params |= {name: params[name] * flat.scale**2 for name in _AREAS if name in params}
    if value is not None:
        params["value"] = value
    kind = device_kind(element, netlist.models)
    names = _terminals(kind, len(nets))
    flat.devices.append(
        Device(prefix + element.name, kind, model, tuple(zip(names, nets, strict=True)), params)
    )


def _count_unresolved(flat: FlatCircuit, what: str) -> None:
    flat.unresolved[what] = flat.unresolved.get(what, 0) + 1


def _number(netlist: Netlist, element: Element, text: str, scope: Mapping[str, float]) -> float:
    try:
        return value_of_expression(text, scope)
    except KeyError as error:
        raise NetlistError(
            netlist.path, element.line, f"{element.name}: parameter {error.args[0]!r} has no value"
        ) from None
    except ValueError as error:
        raise NetlistError(netlist.path, element.line, f"{element.name}: {error}") from None


def _value(netlist: Netlist, element: Element, text: str, scope, flat: FlatCircuit) -> float | None:
    """The value of a card; a source may wait for a parameter of the simulation, a resistor or capacitor may not."""
    try:
        return _number(netlist, element, text, scope)
    except NetlistError as error:
        if element.kind in ("capacitor", "resistor", "inductor") or "has no value" not in str(error):
            raise
    _count_unresolved(flat, f"{element.name}.value")
    return None


def device_kind(element: Element, models: Mapping[str, str]) -> str:
    """One of `KINDS`, from the card's letter, the file's `.model` cards, or the model's name."""
    if element.kind in ("resistor", "capacitor", "inductor", "diode", "bjt", "source"):
        return element.kind
    model = element.model.lower()
    declared = models.get(model, "")
    if declared in ("nmos", "pmos"):
        return declared
    for kind, pattern in _MODEL_KINDS:
        if pattern.search(model.removeprefix("sky130_fd_pr__")):
            return kind
    return "cell" if element.kind == "instance" else "other"


def _terminals(kind: str, count: int) -> tuple[str, ...]:
    names = {"nmos": ("d", "g", "s", "b"), "pmos": ("d", "g", "s", "b"), "bjt": ("c", "b", "e", "sub"),
             "diode": ("a", "k")}.get(kind, ())  # fmt: skip
    return tuple(names[i] if i < len(names) and kind != "cell" else str(i + 1) for i in range(count))


def _merge_subnodes(flat: FlatCircuit) -> FlatCircuit:
    """Fold `net.t3`/`net.n0` into `net` where `net` itself, or another of its sub-nodes, stands in the circuit."""
    pattern = re.compile(r"^(.*)\.[tn]\d+$")

    def root(net: str) -> str:
        match = pattern.match(net)
        return match.group(1) if match else net

    flat.ports = tuple(dict.fromkeys(root(p) for p in flat.ports))
    flat.devices = [
        Device(d.name, d.kind, d.model, tuple((t, root(n)) for t, n in d.pins), d.params) for d in flat.devices
    ]
    flat.capacitors = [(root(a), root(b), c) for a, b, c in flat.capacitors if root(a) != root(b)]
    flat.resistors = [(root(a), root(b), r) for a, b, r in flat.resistors if root(a) != root(b)]
    return flat
