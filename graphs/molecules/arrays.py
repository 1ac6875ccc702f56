"""Atoms and bonds of molecules as arrays: what RDKit has to do before training. Without torch, for worker processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from rdkit import Chem

from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules.smiles import parse_smiles
from counterpoint.graphs.molecules.watch import Watch

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


Arrays = tuple[
    Int[np.ndarray, "molecules 2"],
    Int[np.ndarray, "atoms features"],
    Int[np.ndarray, "2 edges"],
    Int[np.ndarray, "edges bond_features"],
]
"""Numbers of atoms and of directed bonds of each molecule, atoms, directed bonds, their features."""


def molecule_arrays(smiles: Sequence[str], watch: Watch) -> tuple[Arrays, dict[int, str]]:
    """Atoms and bonds of a chunk, joined to few large arrays: what crosses the process border should be few objects.
    Molecules that cannot be used have no atoms; why stands in the dictionary, by their place.

    One call of RDKit per atom and feature is most of the time, so the loop over atoms is `map`'s, in C, and everything
    else is done once per chunk.
    """
    atoms: list[list[int]] = [[] for _ in _ATOM_GETTERS]
    bonds: list[list[int]] = [[] for _ in _BOND_GETTERS]
    sizes, problems = [], {}
    for i, text in enumerate(smiles):
        problem = watch(i + 1)
        try:
            molecule = None if problem else parse_smiles(text)
        except InputError as error:
            problem = str(error)
        if problem:
            problems[i] = problem
            sizes.append((0, 0))
            continue
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
    return (counts, atom_table.astype(np.int16), both_ways, bond_table.astype(np.int16)), problems


def _column(values: list[int]) -> np.ndarray:
    return np.fromiter(values, np.int32, len(values))
