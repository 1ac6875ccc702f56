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
from rdkit import Chem, RDLogger
from torch import Tensor

from counterpoint.graphs.molecules.element_kg import FIRST_ATTRIBUTE, ElementGraph
from counterpoint.graphs.molecules.reader import parse_smiles

# Each atom and bond feature is categorical: (name, number of classes). Class 0 of the bond type is "single".
ATOM_FEATURES = (("atomic number", 119), ("degree", 12), ("charge", 13), ("hydrogens", 9), ("hybridization", 8),
                 ("aromatic", 2), ("in ring", 2), ("chirality", 4), ("isotope", 2))  # fmt: skip
BOND_FEATURES = (("type", 6), ("stereo", 6), ("conjugated", 2), ("in ring", 2))
BOND_TYPES = ("single", "double", "triple", "aromatic", "dative", "other")
_BOND_TYPE = {Chem.BondType.SINGLE: 0, Chem.BondType.DOUBLE: 1, Chem.BondType.TRIPLE: 2, Chem.BondType.AROMATIC: 3,
              Chem.BondType.DATIVE: 4, Chem.BondType.DATIVEONE: 4, Chem.BondType.DATIVEL: 4,
              Chem.BondType.DATIVER: 4}  # fmt: skip
_HYBRID = {Chem.HybridizationType.S: 1, Chem.HybridizationType.SP: 2, Chem.HybridizationType.SP2: 3,
           Chem.HybridizationType.SP3: 4, Chem.HybridizationType.SP3D: 5, Chem.HybridizationType.SP3D2: 6}  # fmt: skip


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
    return _to_tensors(_features(smiles))


def _to_tensors(arrays) -> MoleculeGraph:
    atoms, bonds, features = (torch.from_numpy(a).long() for a in arrays)
    return MoleculeGraph(atoms, bonds, features)


def _features(smiles: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    molecule = parse_smiles(smiles)
    atoms = [
        (
            a.GetAtomicNum(), min(a.GetDegree(), 11), max(-6, min(a.GetFormalCharge(), 6)) + 6,
            min(a.GetTotalNumHs(), 8), _HYBRID.get(a.GetHybridization(), 0), a.GetIsAromatic(), a.IsInRing(),
            min(int(a.GetChiralTag()), 3), a.GetIsotope() > 0,
        )
        for a in molecule.GetAtoms()
    ]  # fmt: skip
    ends, features = [], []
    for b in molecule.GetBonds():
        start, end = b.GetBeginAtomIdx(), b.GetEndAtomIdx()
        ends += ((start, end), (end, start))
        row = (_BOND_TYPE.get(b.GetBondType(), 5), min(int(b.GetStereo()), 5), b.GetIsConjugated(), b.IsInRing())
        features += (row, row)
    return (
        np.array(atoms, dtype=np.int16).reshape(-1, len(ATOM_FEATURES)),
        np.array(ends, dtype=np.int32).reshape(-1, 2).T,
        np.array(features, dtype=np.int16).reshape(-1, len(BOND_FEATURES)),
    )


def _quiet() -> None:
    RDLogger.DisableLog("rdApp.*")


def _features_of_many(smiles: Sequence[str]):
    """Features of a chunk, joined to few large arrays: what crosses the process border should be few objects."""
    parts = [_features(s) for s in smiles]
    sizes = np.array([(len(a), b.shape[1]) for a, b, _ in parts])
    return (
        sizes, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts], 1),
        np.concatenate([p[2] for p in parts]),
    )  # fmt: skip


def featurize(smiles: Sequence[str], workers: int = 0, chunk: int = 512) -> list[MoleculeGraph]:
    """Graphs of many molecules, in order; `workers` processes share the work (0: this process)."""
    chunks = [smiles[i : i + chunk] for i in range(0, len(smiles), chunk)]
    if workers and len(chunks) > 1:
        with ProcessPoolExecutor(workers, initializer=_quiet) as pool:
            parts = list(pool.map(_features_of_many, chunks))
    else:
        parts = [_features_of_many(c) for c in chunks]
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
