"""A flat circuit as a heterogeneous graph of nets, devices and pins, with capacitance labels.

Nodes: `net`, `device`, `pin` (one per device terminal). Edges: device - pin and pin - net, both ways. Power nets are
removed; a capacitor to one of them counts as ground capacitance of its other net. Coupling capacitors between signal
nets are link labels and never message edges.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.graphs.circuits.flatten import KINDS, Device, FlatCircuit
from counterpoint.graphs.circuits.parasitics import Parasitics

POWER_NETS = r"0|a?v(dd|ss|cc|ee|pwr|gnd|pb|nb|subs|dda|ssa|ddd|ssd)\w*!?|a?gnd\w*!?|d?gnd\w*!?|vp?wr|substrate"
TERMINALS = ("d", "g", "s", "b", "c", "e", "sub", "a", "k", "other")
NET_FEATURES = ("port", "pins", *(f"on {kind}" for kind in KINDS), *(f"at terminal {t}" for t in TERMINALS))
DEVICE_FEATURES = (*KINDS, "log10 w", "log10 l", "log10 m", "log10 nf", "log10 value", "terminals")


@dataclass
class CircuitGraph:
    """One circuit, ready for learning.

    `net_x`, `device_x`: circuit statistics (columns `NET_FEATURES`, `DEVICE_FEATURES`), not yet normalised;
    `pin_terminal`: terminal class of each pin (index into `TERMINALS`); `pin_device`, `pin_net`: its two ends.
    `coupling`: pairs of nets (first < second) with capacitance in farad; `ground`: capacitance of each net to power
    nets in farad (nan where the netlist states none at all).
    """

    name: str
    nets: list[str]
    devices: list[str]
    net_x: Float[Tensor, "nets net_features"]
    device_x: Float[Tensor, "devices device_features"]
    pin_terminal: Int[Tensor, " pins"]
    pin_device: Int[Tensor, " pins"]
    pin_net: Int[Tensor, " pins"]
    coupling: Int[Tensor, "2 couplings"]
    coupling_farad: Float[Tensor, " couplings"]
    ground_farad: Float[Tensor, " nets"]
    report: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was left out or read in a way that its owner should know, from file to graph."""

    @property
    def n_nodes(self) -> dict[str, int]:
        return {"net": len(self.nets), "device": len(self.devices), "pin": len(self.pin_net)}

    def node_names(self) -> list[str]:
        """Every node in words, in the order nets, devices, pins; a pin that its terminal does not tell from another of
        its device is numbered."""
        pins: list[str] = []
        seen: Counter[str] = Counter()
        for device, terminal in zip(self.pin_device.tolist(), self.pin_terminal.tolist(), strict=True):
            name = f"pin {TERMINALS[terminal]} of {self.devices[device]}"
            seen[name] += 1
            pins.append(name if seen[name] == 1 else f"{name}, {seen[name]}")
        return [*(f"net {net}" for net in self.nets), *(f"device {device}" for device in self.devices), *pins]

    def edge_index(self) -> dict[tuple[str, str, str], Tensor]:
        """Message edges of both directions: device - pin, pin - net."""
        pin = torch.arange(len(self.pin_net))
        return {
            ("device", "has", "pin"): torch.stack([self.pin_device, pin]),
            ("pin", "of", "device"): torch.stack([pin, self.pin_device]),
            ("pin", "on", "net"): torch.stack([pin, self.pin_net]),
            ("net", "at", "pin"): torch.stack([self.pin_net, pin]),
        }

    def to_hetero_data(self):
        """The graph as a PyTorch Geometric `HeteroData`; couplings stand under `("net", "couples", "net")` with
        `edge_label` in farad and are not message edges."""
        from torch_geometric.data import HeteroData

        data = HeteroData()
        data["net"].x, data["device"].x = self.net_x, self.device_x
        data["pin"].x = torch.nn.functional.one_hot(self.pin_terminal, len(TERMINALS)).float()
        data["net"].ground = self.ground_farad
        for kind, pairs in self.edge_index().items():
            data[kind].edge_index = pairs
        data["net", "couples", "net"].edge_label_index = self.coupling
        data["net", "couples", "net"].edge_label = self.coupling_farad
        return data

    def homogeneous(self) -> tuple[Int[Tensor, " nodes"], Int[Tensor, "2 edges"]]:
        """Node types (0 net, 1 device, 2 pin) and undirected edges, nodes in the order nets, devices, pins."""
        n, d, p = self.n_nodes["net"], self.n_nodes["device"], self.n_nodes["pin"]
        kind = torch.cat([torch.zeros(n), torch.ones(d), torch.full((p,), 2)]).long()
        pin = torch.arange(p) + n + d
        half = torch.cat([torch.stack([self.pin_device + n, pin]), torch.stack([self.pin_net, pin])], 1)
        return kind, torch.cat([half, half.flip(0)], 1)


def build_graph(flat: FlatCircuit, parasitics: Parasitics | None = None, *, power: str = POWER_NETS) -> CircuitGraph:
    """Make the graph of a flat circuit.

    Capacitances come from `parasitics` (SPEF, DSPF) when given, else from the netlist's own plain capacitors. Zero and
    negative values are dropped and counted in `report`. `power` is a regular expression for power nets, matched
    case-insensitively against the whole name's last path element; `.global` nets are power nets too.

    Names of `parasitics` and of the netlist are matched whatever their case and bus brackets (`a<3>`, `a[3]`); its
    nodes (`net:3`, `M1:D`) on device terminals, as in a DSPF's instance section, stand for their nets.

    Raises `InputError` when nothing is left of the circuit.
    """
    if parasitics is not None:
        flat = _on_nets(flat, parasitics)
    is_power_pattern = re.compile(rf"(?:{power})", re.IGNORECASE)
    global_nets = {net.lower() for net in flat.globals}

    def is_power(net: str) -> bool:
        return net.lower() in global_nets or is_power_pattern.fullmatch(net.rpartition("/")[2]) is not None

    report: Counter[str] = Counter()
    nets = [net for net in flat.nets if not is_power(net)]
    report["power nets removed"] = len(flat.nets) - len(nets)
    if not nets or not flat.devices:
        lacks = "signal net" if flat.devices else "device"
        only = " (capacitors and resistors alone are parasitics)" if not flat.devices and flat.nets else ""
        raise InputError(f"circuit {flat.name} has no {lacks}{only}; give a netlist of devices joined by nets")
    number = {net: i for i, net in enumerate(nets)}
    statistics = np.zeros((len(nets), len(NET_FEATURES)), dtype=np.float32)
    statistics[[number[port] for port in flat.ports if port in number], 0] = 1
    terminal, owner, pin_net = [], [], []
    for i, device in enumerate(flat.devices):
        for name, net in device.pins:
            if net in number:
                terminal.append(TERMINALS.index(name) if name in TERMINALS else len(TERMINALS) - 1)
                owner.append(i)
                pin_net.append(number[net])
    kinds = np.array([KINDS.index(device.kind) for device in flat.devices])[owner]
    for columns in (np.ones_like(kinds), 2 + kinds, 2 + len(KINDS) + np.array(terminal, dtype=np.int64)):
        np.add.at(statistics, (pin_net, columns), 1)
    net_x = torch.from_numpy(statistics)
    net_x[:, 1:] = net_x[:, 1:].log1p()
    device_x = torch.tensor([_device_statistics(device) for device in flat.devices])
    coupling, ground = _capacitances(flat, parasitics, number, is_power, report)
    pairs = torch.tensor(sorted(coupling), dtype=torch.int64).reshape(-1, 2).T
    return CircuitGraph(
        flat.name, nets, [d.name for d in flat.devices], net_x, device_x,
        torch.tensor(terminal, dtype=torch.int64), torch.tensor(owner, dtype=torch.int64),
        torch.tensor(pin_net, dtype=torch.int64), pairs.contiguous(),
        torch.tensor([coupling[pair] for pair in sorted(coupling)], dtype=torch.float64), ground, dict(report),
        tuple(f"{n} {what}" for what, n in report.items() if what.endswith("dropped")),
    )  # fmt: skip


def _name_key(net: str) -> str:
    """What two files have in common that spell a net in their own ways."""
    return net.lower().replace("<", "[").replace(">", "]")


def _on_nets(flat: FlatCircuit, parasitics: Parasitics) -> FlatCircuit:
    """Device terminals on nets, where the netlist puts them on nodes of the extraction."""
    net_of_node = {_name_key(node): net for node, net in parasitics.nodes.items() if node != net}

    def net(name: str) -> str:
        return net_of_node.get(_name_key(name), name)

    devices = [replace(d, pins=tuple((t, net(n)) for t, n in d.pins)) for d in flat.devices]
    return replace(flat, devices=devices, capacitors=[], resistors=[])


def _device_statistics(device: Device) -> list[float]:
    def log10(name: str, default: float) -> float:
        value = device.params.get(name, default)
        return math.log10(value) if value > 0 else 0.0

    # Magic writes micrometres without a unit (w=2), HSPICE metres (w=2u): lengths above a millimetre are micrometres.
    def length(name: str) -> float:
        value = device.params.get(name, 0.0)
        return math.log10(value * 1e-6 if value > 1e-3 else value) + 7 if value > 0 else 0.0

    value = next((device.params[k] for k in ("c", "r", "value") if device.params.get(k, 0) > 0), 1.0)
    kind = [float(device.kind == k) for k in KINDS]
    return [*kind, length("w"), length("l"), log10("m", 1), log10("nf", 1), math.log10(value), float(len(device.pins))]


def _capacitances(flat, parasitics, number, is_power, report) -> tuple[dict[tuple[int, int], float], Tensor]:
    coupling: dict[tuple[int, int], float] = {}
    ground = [0.0] * len(number)
    if parasitics is not None:
        spelling = {_name_key(net): net for net in number}

        def known(net: str) -> str:
            return net if net in number else spelling.get(_name_key(net), net)

        entries = [(known(a), known(b), c) for (a, b), c in parasitics.coupling.items()]
        entries += [(known(net), "0", c) for net, c in parasitics.ground.items() if c]
    else:
        entries = flat.capacitors
    for a, b, farad in entries:
        if farad <= 0:
            report["zero or negative capacitors dropped"] += 1
        elif a in number and b in number:
            i, j = sorted((number[a], number[b]))
            if i != j:
                coupling[i, j] = coupling.get((i, j), 0.0) + farad
        elif (a in number and is_power(b)) or (b in number and is_power(a)):
            ground[number[a] if a in number else number[b]] += farad
        elif is_power(a) and is_power(b):
            report["capacitors between power nets dropped"] += 1
        else:
            report["capacitors at unknown nets dropped"] += 1
    if not entries:
        ground = [math.nan] * len(number)
    report["coupling pairs"], report["grounded nets"] = len(coupling), sum(farad > 0 for farad in ground)
    return coupling, torch.tensor(ground, dtype=torch.float64)


@dataclass(frozen=True)
class CapacitanceScale:
    """Maps capacitance to a label in [0, 1]: y = clip(log10(C / low) / log10(high / low), 0, 1).

    Fitted on training circuits only (1st to 99th percentile of log10 C), so that no test circuit leaks into it.
    """

    low: float
    high: float

    @classmethod
    def fit(cls, farads: Tensor) -> CapacitanceScale:
        if not (farads > 0).any():
            raise InputError("the training circuits state no positive capacitance; give an extracted netlist or SPEF")
        logs = farads[farads > 0].double().log10()
        low, high = logs.quantile(0.01).item(), logs.quantile(0.99).item()
        return cls(10**low, 10 ** max(high, low + 1e-3))

    def to_label(self, farads: Tensor) -> Tensor:
        span = math.log10(self.high / self.low)
        return ((farads.double() / self.low).log10() / span).clamp(0, 1).float()

    def to_farad(self, labels: Tensor) -> Tensor:
        return self.low * (self.high / self.low) ** labels.double()
