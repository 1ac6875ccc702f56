"""Molecules as graphs: atom and bond features, batches, many processes.

A `MoleculeGraph` is plain tensors; `join_molecules` joins graphs to one `MoleculeBatch`, which also carries the element
attributes when an element graph is given.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules.arrays import Arrays, molecule_arrays
from counterpoint.graphs.molecules.element_kg import FIRST_ATTRIBUTE, ElementGraph
from counterpoint.graphs.molecules.watch import Watch, map_watched

CHUNK = 512

@dataclass
class MoleculeGraph:
    """Atoms [n, 9] and directed bonds ([2, 2 m] with features [2 m, 4]); a bond's two directions side by side."""

    atoms: Int[Tensor, "atoms features"]
    bonds: Int[Tensor, "2 edges"]
    bond_features: Int[Tensor, "edges bond_features"]


def molecule_graph(smiles: str) -> MoleculeGraph:
    """The graph of one molecule; single atoms and unbonded fragments stay in it.

    >>> g = molecule_graph("CO")
    >>> g.atoms[:, 0].tolist(), g.bonds.tolist()
    ([6, 8], [[0, 1], [1, 0]])
    """
    return featurize([smiles])[0]


def featurize(smiles: Sequence[str], chunk: int = CHUNK) -> list[MoleculeGraph]:
    """Graphs of molecules that have been read before, in order; `InputError` for one that RDKit cannot parse."""
    graphs: list[MoleculeGraph] = []
    for start in range(0, len(smiles), chunk):
        arrays, problems = molecule_arrays(smiles[start : start + chunk], Watch())
        if problems:
            raise InputError(next(iter(problems.values())))
        graphs += _graphs(arrays)
    return graphs


def featurize_apart(
    smiles: Sequence[str], workers: int = 1, chunk: int = CHUNK
) -> tuple[list[MoleculeGraph], dict[int, str]]:
    """Graphs of anybody's molecules, made in `workers` processes: one that RDKit cannot parse, or that ends its
    process, has a graph without atoms and its reason in the dictionary, by its place in the list.

    >>> graphs, problems = featurize_apart(["CO", "C(", "CCO"])
    >>> [len(g.atoms) for g in graphs], problems
    ([2, 0, 3], {1: "'C(' is no SMILES that RDKit parses"})
    """
    graphs: list[MoleculeGraph] = []
    problems: dict[int, str] = {}
    for arrays, found in map_watched(molecule_arrays, smiles, workers, chunk):
        problems |= {len(graphs) + i: reason for i, reason in found.items()}
        graphs += _graphs(arrays)
    return graphs, problems


def _graphs(arrays: Arrays) -> list[MoleculeGraph]:
    sizes, *tables = arrays
    atoms, bonds, features = (torch.from_numpy(x).long() for x in tables)
    n, m = sizes[:, 0].tolist(), sizes[:, 1].tolist()
    return list(map(MoleculeGraph, atoms.split(n), bonds.split(m, 1), features.split(m)))


@dataclass
class MoleculeBatch:
    """Several molecules as one graph.

    `graph` numbers the molecule of each atom; `attribute_*` are filled by `with_element_knowledge`: attribute nodes
    (ids in the element graph's node table), their molecules, and directed edges attribute node -> atom with relation.
    """

    atoms: Int[Tensor, "atoms features"]
    bonds: Int[Tensor, "2 edges"]
    bond_features: Int[Tensor, "edges bond_features"]
    graph: Int[Tensor, " atoms"]
    n_graphs: int
    attributes: Int[Tensor, " attributes"] | None = None
    attribute_graph: Int[Tensor, " attributes"] | None = None
    attribute_edges: Int[Tensor, "2 relations"] | None = None
    attribute_relation: Int[Tensor, " relations"] | None = None

    def to(self, device) -> MoleculeBatch:
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def __len__(self) -> int:
        return self.n_graphs

    def cut(self, start: int, stop: int) -> MoleculeBatch:
        """Molecules start..stop as a batch of their own; atoms and molecules are numbered anew."""
        start, stop, _ = slice(start, stop).indices(self.n_graphs)
        atoms = (self.graph >= start) & (self.graph < stop)
        edges = atoms[self.bonds[0]]
        number = torch.cumsum(atoms, 0) - 1
        part = MoleculeBatch(
            self.atoms[atoms],
            number[self.bonds[:, edges]],
            self.bond_features[edges],
            self.graph[atoms] - start,
            max(stop - start, 0),
        )
        if self.attributes is None:
            return part
        kept = (self.attribute_graph >= start) & (self.attribute_graph < stop)
        relations = kept[self.attribute_edges[0]]
        attribute = torch.cumsum(kept, 0) - 1
        source, target = self.attribute_edges[:, relations]
        return replace(
            part,
            attributes=self.attributes[kept],
            attribute_graph=self.attribute_graph[kept] - start,
            attribute_edges=torch.stack([attribute[source], number[target]]),
            attribute_relation=self.attribute_relation[relations],
        )


def join_molecules(graphs: Sequence[MoleculeGraph]) -> MoleculeBatch:
    """Join graphs; atom numbers of each are shifted behind those of the graphs before it.

    >>> batch = join_molecules([molecule_graph("CO"), molecule_graph("[Ar]")])
    >>> batch.graph.tolist(), batch.n_graphs
    ([0, 0, 1], 2)
    """
    sizes = [len(g.atoms) for g in graphs]
    shifts = [0, *itertools.accumulate(sizes)][:-1]
    return MoleculeBatch(
        torch.cat([g.atoms for g in graphs]),
        torch.cat([g.bonds + s for g, s in zip(graphs, shifts, strict=True)], 1),
        torch.cat([g.bond_features for g in graphs]),
        torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor(sizes)),
        len(graphs),
    )


def with_element_knowledge(batch: MoleculeBatch, knowledge: ElementGraph) -> MoleculeBatch:
    """KCL's augmentation: one node per distinct attribute of a molecule's elements, and a directed edge of the
    attribute's relation to every atom of an element that has it. Bonds stay as they are.

    >>> from counterpoint.graphs.molecules.element_kg import periodic_table_graph
    >>> batch = with_element_knowledge(join_molecules([molecule_graph("CC")]), periodic_table_graph())
    >>> len(batch.attributes), batch.attribute_edges.shape[1] == 2 * len(batch.attributes)
    (10, True)
    """
    z = batch.atoms[:, 0]
    per_element = [torch.from_numpy(knowledge.of_element[e]) if e else torch.empty(0, 2).long() for e in range(119)]
    counts = torch.tensor([len(p) for p in per_element])
    starts = torch.cumsum(counts, 0) - counts
    table = torch.cat(per_element)
    repeats = counts[z]
    atom = torch.repeat_interleave(torch.arange(len(z)), repeats)
    first = torch.cumsum(repeats, 0) - repeats
    entry = table[starts[z][atom] + torch.arange(len(atom)) - first[atom]]
    key = batch.graph[atom] * len(knowledge.attributes) + entry[:, 0]
    distinct, node = torch.unique(key, return_inverse=True)
    return replace(
        batch,
        attributes=distinct % len(knowledge.attributes) + FIRST_ATTRIBUTE,
        attribute_graph=distinct // len(knowledge.attributes),
        attribute_edges=torch.stack([node, atom]),
        attribute_relation=entry[:, 1],
    )
