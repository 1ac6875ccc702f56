"""SMILES given to RDKit: bounded, and refused in words. Light on purpose: worker processes start with this."""

from __future__ import annotations

from rdkit import Chem, rdBase

from counterpoint.common.errors import InputError

LONGEST, DEEPEST = 5000, 100
"""Characters and nested branches of a SMILES: RDKit recurses along both, and ends the process or hangs beyond."""


def oversize(smiles: str) -> str:
    """Why a SMILES is not given to RDKit; empty for all that chemists write.

    >>> oversize("C" * 6000), oversize("CC(C)O")
    ('is 6000 characters long; up to 5000 are read', '')
    """
    if len(smiles) > LONGEST:
        return f"is {len(smiles)} characters long; up to {LONGEST} are read"
    depth = deepest = 0
    for character in smiles:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return f"has branches nested {deepest} deep; up to {DEEPEST} are read" if deepest > DEEPEST else ""


def parse_smiles(smiles: str) -> Chem.Mol:
    """The molecule of a SMILES that has been read before; `InputError` when RDKit cannot parse it or it has no atom."""
    if problem := oversize(smiles):
        raise InputError(f"{smiles[:40]!r}... {problem}")
    with rdBase.BlockLogs():  # the reader has listed what RDKit warns of
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise InputError(f"{smiles[:200]!r} is no SMILES that RDKit parses")
    if not molecule.GetNumAtoms():
        raise InputError(f"{smiles[:40]!r} is a SMILES of no atom; give one molecule")
    return molecule
