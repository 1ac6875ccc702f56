"""Morgan fingerprints of molecules. Without torch, for worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int
from rdkit import DataStructs
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from counterpoint.graphs.molecules.smiles import parse_smiles
from counterpoint.graphs.molecules.watch import Watch, map_watched


def morgan_fingerprints(smiles: Sequence[str], radius: int = 2, bits: int = 1024) -> list[Any]:
    """RDKit bit vectors of the molecules (ECFP4 at the defaults)."""
    generator = GetMorganGenerator(radius=radius, fpSize=bits)
    return [generator.GetFingerprint(parse_smiles(s)) for s in smiles]


def fingerprint_matrix(smiles: Sequence[str], radius: int = 2, bits: int = 2048) -> np.ndarray:
    """Morgan bits as a 0/1 matrix [n, bits].

    >>> fingerprint_matrix(["CCO", "OCC"]).sum(1).tolist()
    [6, 6]
    """
    out = np.zeros((len(smiles), bits), dtype=np.int8)
    for row, fingerprint in zip(out, morgan_fingerprints(smiles, radius, bits), strict=True):
        DataStructs.ConvertToNumpyArray(fingerprint, row)
    return out


def fingerprints_apart(smiles: Sequence[str], radius: int = 2, bits: int = 2048) -> Int[np.ndarray, "molecules bits"]:
    """`fingerprint_matrix`, made in another process; a molecule that ends it has no bit set."""
    parts = map_watched(partial(_watched_bits, radius=radius, bits=bits), smiles)
    packed = np.concatenate([np.empty((0, -(-bits // 8)), np.uint8), *parts])
    return np.unpackbits(packed, axis=1, count=bits).astype(np.int8)


def _watched_bits(smiles: Sequence[str], watch: Watch, radius: int, bits: int) -> np.ndarray:
    out = np.zeros((len(smiles), bits), dtype=np.int8)
    for i, text in enumerate(smiles):
        if not watch(i + 1):
            out[i] = fingerprint_matrix([text], radius, bits)[0]
    return np.packbits(out, axis=1)
