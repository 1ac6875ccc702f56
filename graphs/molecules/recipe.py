"""Molecules as tensors alone: what an exported encoder takes, and in words how RDKit makes it of SMILES.

A batch of training holds a `MoleculeBatch`; one of these tensors (`INPUTS`) stands for the same molecules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.trainers.inputs import Input
from counterpoint.graphs.molecules.arrays import BOND_FEATURES, BOND_TYPES
from counterpoint.graphs.molecules.featurize import MoleculeBatch, featurize, join_molecules


def _numbered(names: tuple[str, ...]) -> str:
    return ", ".join(f"{i} {name}" for i, name in enumerate(names))


ATOMS = Input(
    "int64 features of every atom, of one molecule behind the other. A molecule is what RDKit's MolFromSmiles makes of "
    "its SMILES with the default sanitization; its atoms stand in RDKit's order (GetAtomWithIdx), hydrogens are atoms "
    "only where RDKit leaves them some. Columns: 0 atomic number (GetAtomicNum; 0 for a placeholder); 1 degree "
    "(GetDegree, 11 for more); 2 formal charge + 6 (GetFormalCharge, cut to -6..6); 3 hydrogens (GetTotalNumHs, 8 for "
    "more); 4 hybridization (GetHybridization: 1 S, 2 SP, 3 SP2, 4 SP3, 5 SP3D, 6 SP3D2, 0 any other); 5 aromatic "
    "(GetIsAromatic); 6 in a ring (IsInRing); 7 chirality (RDKit's number of GetChiralTag, 3 for more: 0 unspecified, "
    "1 clockwise, 2 counter-clockwise, 3 other); 8 isotope given (GetIsotope above 0).",
    ("features",),
    first="atoms",
    free=("atoms",),
)
BONDS = Input(
    "int64 places in `atoms` of the two ends of every bond, counted through all molecules: bonds in RDKit's order "
    "(GetBondWithIdx) of one molecule behind the other, each twice, from its begin to its end atom and then back.",
    ("bonds",),
    first="ends",
    free=("bonds",),
)
BOND_KINDS = Input(
    "int64 features of every column of `bonds`, the same for both directions of a bond. Columns: 0 type (GetBondType: "
    f"{_numbered(BOND_TYPES)}; dative are DATIVE, DATIVEONE, DATIVEL and DATIVER); 1 stereo (RDKit's number of "
    "GetStereo, 5 for more: 0 none, 1 any, 2 Z, 3 E, 4 cis, 5 trans); 2 conjugated (GetIsConjugated); 3 in a ring "
    "(IsInRing).",
    ("features",),
    first="bonds",
    free=("bonds",),
)
SIZES = Input(
    "int64 number of atoms of every molecule, in their order; together they are as many as `atoms` has rows.",
    first="molecules",
    free=("molecules",),
)

#: What `encode` reads of a batch of tensors.
INPUTS = {"atoms": ATOMS, "bonds": BONDS, "bond_features": BOND_KINDS, "sizes": SIZES}


def tensors_of(molecules: MoleculeBatch) -> dict[str, Tensor]:
    """Molecules as `INPUTS`; `molecules_of` makes them again.

    >>> from counterpoint.graphs.molecules.featurize import join_molecules, molecule_graph
    >>> given = tensors_of(join_molecules([molecule_graph("CO"), molecule_graph("[Ar]")]))
    >>> {name: list(value.shape) for name, value in given.items()}, given["sizes"].tolist()
    ({'atoms': [3, 9], 'bonds': [2, 2], 'bond_features': [2, 4], 'sizes': [2]}, [2, 1])
    """
    sizes = torch.bincount(molecules.graph, minlength=molecules.n_graphs)
    return {
        "atoms": molecules.atoms,
        "bonds": molecules.bonds,
        "bond_features": molecules.bond_features,
        "sizes": sizes,
    }


def example() -> dict[str, Tensor]:
    """A few molecules as tensors, from which an export is traced."""
    return tensors_of(join_molecules(featurize(["CCO", "c1ccccc1C(=O)[O-]", "C[C@H](N)C#N", "[Na+].[Cl-]"])))


def molecules_of(batch: Mapping[str, Any], bond_features: bool = True) -> MoleculeBatch:
    """The molecules of a batch: its `molecule`, or those that its tensors (`INPUTS`) say; `bond_features=False` for an
    encoder that does not read them, which then need not be given.

    >>> from counterpoint.graphs.molecules.featurize import join_molecules, molecule_graph
    >>> molecules = join_molecules([molecule_graph("CO"), molecule_graph("[Ar]")])
    >>> molecules_of(tensors_of(molecules)).graph.tolist()
    [0, 0, 1]
    """
    if "molecule" in batch:
        return batch["molecule"]
    atoms, bonds, sizes = batch["atoms"], batch["bonds"], batch["sizes"]
    # Comparisons, not `repeat_interleave`: its length would depend on values, which no exported program can follow.
    place = torch.arange(atoms.shape[0], device=atoms.device)
    graph = (place[:, None] >= sizes.cumsum(0)[None]).sum(1).clamp(max=sizes.shape[0] - 1)
    kinds = batch["bond_features"] if bond_features else bonds.new_zeros(bonds.shape[1], len(BOND_FEATURES))
    return MoleculeBatch(atoms, bonds, kinds, graph, sizes.shape[0])
