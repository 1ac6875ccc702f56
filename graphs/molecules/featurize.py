"""Molecules as graphs: atom and bond features, batches, many processes.

A `MoleculeGraph` is plain tensors; `collate` joins graphs to one `MoleculeBatch`, which also carries the element
attributes when an element graph is given.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from rdkit import Chem
from torch import Tensor

from counterpoint.graphs.molecules.element_kg import FIRST_ATTRIBUTE, ElementGraph
from counterpoint.graphs.molecules.reader import parse_smiles

# Each atom and bond feature is categorical: (name, number of classes). Class 0 of the bond type is "single".
ATOM_FEATURES = (("atomic number", 119), ("degree", 12), ("charge", 13), ("hydrogens", 9), ("hybridization", 8),
                 ("aromatic", 2), ("in ring", 2), ("chirality", 4), ("isotope", 2))  # fmt: skip
BOND_FEATURES = (("type", 6), ("stereo", 6), ("conjugated", 2), ("in ring", 2))
BOND_TYPES = ("single", "double", "triple", "aromatic", "dative", "other")
_ATOM, _BOND = Chem.Atom, Chem.Bond
_ATOM_GETTERS = (_ATOM.GetAtomicNum, _ATOM.GetDegree, _ATOM.GetFormalCharge, _ATOM.GetTotalNumHs,
                 _ATOM.GetHybridization, _ATOM.GetIsAromatic, _ATOM.IsInRing, _ATOM.GetChiralTag,
                 _ATOM.GetIsotope)  # fmt: skip
_BOND_GETTERS = (_BOND.GetBeginAtomIdx, _BOND.GetEndAtomIdx, _BOND.GetBondType, _BOND.GetStereo,
                 _BOND.GetIsConjugated, _BOND.IsInRing)  # fmt: skip


def _table(values: dict[int, int], other: int) -> np.ndarray:
    """RDKit's number of an enum -> our class."""
    table = np.full(64, other, dtype=np.int16)
    for rdkit, ours in values.items():
        table[int(rdkit)] = ours
    return table


_TYPE, _HYBRID = Chem.BondType, Chem.HybridizationType
_BOND_CLASS = _table({_TYPE.SINGLE: 0, _TYPE.DOUBLE: 1, _TYPE.TRIPLE: 2, _TYPE.AROMATIC: 3, _TYPE.DATIVE: 4,
                      _TYPE.DATIVEONE: 4, _TYPE.DATIVEL: 4, _TYPE.DATIVER: 4}, other=5)  # fmt: skip
_HYBRID_CLASS = _table({_HYBRID.S: 1, _HYBRID.SP: 2, _HYBRID.SP2: 3, _HYBRID.SP3: 4, _HYBRID.SP3D: 5,
                        _HYBRID.SP3D2: 6}, other=0)  # fmt: skip


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


def _features(smiles: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Atoms and bonds of a chunk, joined to few large arrays: what crosses the process border should be few objects.

    One call of RDKit per atom and feature is most of the time, so the loop over atoms is `map`'s, in C, and everything
    else is done once per chunk.
    """
    atoms: list[list[int]] = [[] for _ in _ATOM_GETTERS]
    bonds: list[list[int]] = [[] for _ in _BOND_GETTERS]
    sizes = []
    for text in smiles:
        molecule = parse_smiles(text)
        n_atoms, n_bonds = molecule.GetNumAtoms(), molecule.GetNumBonds()
        for found, getters, columns in (
            (list(map(molecule.GetAtomWithIdx, range(n_atoms))), _ATOM_GETTERS, atoms),
            (list(map(molecule.GetBondWithIdx, range(n_bonds))), _BOND_GETTERS, bonds),
        ):
            for getter, column in zip(getters, columns, strict=True):
                column.extend(map(getter, found))
        sizes.append((n_atoms, n_bonds))
    number, degree, charge, hydrogens, hybrid, aromatic, ring, chirality, isotope = map(_column, atoms)
    atom_table = np.stack([number, degree.clip(max=11), charge.clip(-6, 6) + 6, hydrogens.clip(max=8),
                           _HYBRID_CLASS[hybrid], aromatic, ring, chirality.clip(max=3), isotope > 0], 1)  # fmt: skip
    start, end, kind, stereo, conjugated, bond_ring = map(_column, bonds)
    both_ways = np.stack([np.stack([start, end], 1).ravel(), np.stack([end, start], 1).ravel()])
    bond_table = np.stack([_BOND_CLASS[kind], stereo.clip(max=5), conjugated, bond_ring], 1).repeat(2, 0)
    counts = np.array(sizes, dtype=np.int64).reshape(-1, 2) * (1, 2)
    return counts, atom_table.astype(np.int16), both_ways, bond_table.astype(np.int16)


def _column(values: list[int]) -> np.ndarray:
    return np.fromiter(values, np.int32, len(values))


def featurize(smiles: Sequence[str], workers: int = 0, chunk: int = 512) -> list[MoleculeGraph]:
    """Graphs of many molecules, in order; `workers` processes share the work (0: this process)."""
    chunks = [smiles[i : i + chunk] for i in range(0, len(smiles), chunk)]
    if workers and len(chunks) > 1:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_features, chunks))
    else:
        parts = [_features(c) for c in chunks]
    graphs = []
    for sizes, atoms, bonds, features in parts:
        atoms, bonds, features = (torch.from_numpy(x).long() for x in (atoms, bonds, features))
        n, m = sizes[:, 0].tolist(), sizes[:, 1].tolist()
        graphs += map(MoleculeGraph, atoms.split(n), bonds.split(m, 1), features.split(m))
    return graphs


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


def collate(graphs: Sequence[MoleculeGraph]) -> MoleculeBatch:
    """Join graphs; atom numbers of each are shifted behind those of the graphs before it.

    >>> batch = collate([molecule_graph("CO"), molecule_graph("[Ar]")])
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
    >>> batch = with_element_knowledge(collate([molecule_graph("CC")]), periodic_table_graph())
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
