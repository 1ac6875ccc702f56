"""Circuits of a manifest as graphs, joined to one and sampled node by node."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from counterpoint.common.data.archives import packed
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.importing import require_file
from counterpoint.common.data.left_out import leave_out
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.places import Folder
from counterpoint.common.data.samples import BadSample, Samples, options_hash, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.loader import Datasets
from counterpoint.graphs.circuits.flatten import flatten_netlist
from counterpoint.graphs.circuits.graph import POWER_NETS, CircuitGraph, build_graph
from counterpoint.graphs.circuits.parasitics import read_dspf, read_spef
from counterpoint.graphs.circuits.spice import read_spice
from counterpoint.graphs.configs import CircuitDataConfig
from counterpoint.graphs.sampler import NeighborSampler, Subgraph


def load_circuit(
    row: Mapping[str, Any], root: Path | Folder, power: str = "", allow_outside: bool = False
) -> CircuitGraph:
    """The graph of one manifest row: `netlist`, and optionally `parasitics` (SPEF, DSPF/SPF) and `top`. Its `notes` say
    what was left out on the way. `allow_outside` lets the netlist include files outside of its own folder."""
    netlist = read_spice(root / str(row["netlist"]), allow_outside=allow_outside)
    top, extra = (v if isinstance(v := row.get(name), str) else "" for name in ("top", "parasitics"))  # a gap is NaN
    flat = flatten_netlist(netlist, top or None)
    parasitics = None
    if extra:
        path = require_file(root / extra)
        if unpack := packed(path):
            raise InputError(f"{path}: {unpack}")
        parasitics = read_spef(path) if path.suffix.lower() == ".spef" else read_dspf(path)
    try:
        graph = build_graph(flat, parasitics, power=power or POWER_NETS)
    except InputError as error:
        raise InputError(f"{netlist.path}: {error}") from None
    graph.name = str(row.get("id") or graph.name)
    notes = [f"{name}, which it includes, does not exist" for name in netlist.missing_includes]
    if flat.unresolved:
        some = ", ".join(list(flat.unresolved)[:3])
        notes.append(f"{sum(flat.unresolved.values())} device parameter(s) without a value ({some}) left out")
    graph.notes = (*netlist.notes, *notes, *(parasitics.notes if parasitics else ()), *graph.notes)
    return graph


def load_circuits(manifest: Manifest, power: str = "") -> list[CircuitGraph]:
    """All circuits of a manifest, in its order."""
    return [graph for _, graph in read_circuits(manifest, power, [])]


def read_circuits(
    manifest: Manifest, power: str, bad: list[BadSample], on_error: str = "raise"
) -> Iterator[tuple[int, CircuitGraph]]:
    """(number of its row, circuit); with `on_error="skip"` what cannot be read goes to `bad` with its reason."""
    if "netlist" not in manifest.frame:
        columns = ", ".join(manifest.frame.columns)
        raise InputError(f"{manifest.path or 'manifest'}: has no column netlist (its columns: {columns}); make it "
            "with `data import circuits`")
    frame = manifest.frame.astype(object).where(manifest.frame.notna(), None)
    for number, row in zip(frame.index.tolist(), frame.to_dict("records")):
        try:
            yield number, load_circuit(row, manifest.folder, power)
        except (InputError, OSError, ValueError, RecursionError) as error:
            if on_error == "raise":
                raise
            bad.append(BadSample(number, str(row["id"]), " ".join(str(error).split()) or type(error).__name__))


_NUMBERS = itertools.count()


@dataclass(eq=False)
class JoinedCircuits:
    """Several circuits as one graph without edges between them; nodes keep the order of the circuits and are called as
    in `nodes`."""

    kind: Tensor
    edge_index: Tensor
    circuit: Tensor
    names: list[str]
    nodes: list[str]

    @classmethod
    def of(cls, graphs: Sequence[CircuitGraph]) -> JoinedCircuits:
        kinds, edges, owner, shift = [], [], [], 0
        for number, graph in enumerate(graphs):
            kind, pairs = graph.homogeneous()
            kinds.append(kind)
            edges.append(pairs + shift)
            owner.append(torch.full_like(kind, number))
            shift += len(kind)
        nodes = [name for graph in graphs for name in graph.node_names()]
        return cls(torch.cat(kinds), torch.cat(edges, 1), torch.cat(owner), [g.name for g in graphs], nodes)


#: Circuits by the key of their data set: batches name them, also those that worker processes made.
_WHOLE: WeakValueDictionary[str, JoinedCircuits] = WeakValueDictionary()


class NodeSeeds(Samples):
    """Every node once an epoch, as the seed of a sampled neighbourhood, with the id `circuit/net vout`. `collate` draws
    the neighbourhoods with the batch's own random numbers (PyTorch's generator, which the trainer seeds per batch).

    `rows` are the circuits' rows in the manifest, `left_out` those of it that could not be read.
    """

    def __init__(
        self,
        joined: JoinedCircuits,
        fanout: Sequence[int],
        synthetic: str = "",
        rows: Sequence[int] = (),
        left_out: Sequence[BadSample] = (),
    ):
        self.rows, self.left_out = tuple(rows), tuple(left_out)
        self.joined, self.synthetic, self.fanout = joined, synthetic, tuple(fanout)
        self.key = f"{os.getpid()}/{next(_NUMBERS)}"
        _WHOLE[self.key] = joined
        self.sampler = NeighborSampler(joined.edge_index, len(joined.kind), fanout)

    def __len__(self) -> int:
        return len(self.joined.kind)

    def __getitem__(self, position: int) -> dict[str, Any]:
        group = self.joined.names[self.joined.circuit[position]]
        here = {"node": self.joined.nodes[position], "joined": self.joined}
        return {"index": int(position), "id": self.ids[position], "group": group, **here}

    @cached_property
    def ids(self) -> list[str]:
        return [f"{circuit}/{node}" for circuit, node in zip(self.groups, self.joined.nodes, strict=True)]

    @property
    def groups(self) -> list[str]:
        return [self.joined.names[c] for c in self.joined.circuit.tolist()]

    @cached_property
    def hash(self) -> str:
        learnt_from = {name: value for name, value in vars(self.joined).items() if name != "nodes"}
        return options_hash(values_hash(learnt_from), fanout=self.fanout)

    def row_of(self, position: int) -> int:
        """The manifest row of a node's circuit; the circuit's number where no rows are known."""
        circuit = int(self.joined.circuit[position])
        return self.rows[circuit] if self.rows else circuit

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The samples' neighbourhoods in the circuits they come from."""
        seeds = torch.tensor([s["index"] for s in samples])
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        sub: Subgraph = self.sampler.sample(seeds, generator=generator)
        nodes = sub.node["node"]
        return {
            "index": seeds,
            "id": [s["id"] for s in samples],
            "group": [s["group"] for s in samples],
            "kind": self.joined.kind[nodes],
            "edge_index": sub.edge_index["node", "to", "node"],
            "whole": self.key,
        }


def whole_circuits(batch: Mapping[str, Any]) -> JoinedCircuits | None:
    """The circuits that a batch's seeds come from, where their data set lives in this process."""
    return _WHOLE.get(batch.get("whole", ""))


def circuit_datasets(
    config: CircuitDataConfig, fanout: Sequence[int], on_error: str = "raise", max_bad: float = 0.01
) -> Datasets:
    """Training circuits (split `train`, or all without a split) as node seeds, and the test circuits likewise.

    A circuit that cannot be read raises `InputError`; with `on_error="skip"` it is left out with its reason, unless
    more than a share `max_bad` of a split cannot.
    """
    if not config.manifest:
        raise InputError("--data.manifest is not set; make one with `counterpoint graphs data import circuits`")
    manifest = Manifest.load(config.manifest)
    split = manifest.frame.get("split")

    def seeds(part: Manifest) -> NodeSeeds:
        bad: list[BadSample] = []
        read = list(read_circuits(part, config.power, bad, on_error))
        leave_out(bad, len(part), on_error, max_bad, str(manifest.path or "manifest"))
        joined = JoinedCircuits.of([graph for _, graph in read])
        return NodeSeeds(joined, fanout, synthetic_part(manifest), [number for number, _ in read], bad)

    if split is None or not (split == "train").any():
        return Datasets(seeds(manifest))
    test = seeds(manifest.select(split="test")) if (split == "test").any() else None
    return Datasets(seeds(manifest.select(split="train")), test=test)
