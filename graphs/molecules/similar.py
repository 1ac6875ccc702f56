"""Batches of similar molecules: Butina clusters of Morgan fingerprints (KCL's hard negatives)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rdkit import DataStructs
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from rdkit.ML.Cluster.Butina import ClusterData

from counterpoint.common.data.samplers import BatchSampler
from counterpoint.graphs.molecules.reader import parse_smiles


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


def butina_order(smiles: Sequence[str], threshold: float = 0.85, chunk: int = 50_000) -> list[int]:
    """All molecules in the order of their clusters, from the largest cluster to the smallest.

    Clusters hold molecules within `threshold` Tanimoto distance of their centre; distances are taken inside chunks of
    the list, as the released code does, which bounds the quadratic memory.

    >>> butina_order(["CCCCCCO", "c1ccncc1", "CCCCCCCO", "CCCCCCCCO"])[-1]
    1
    """
    clusters: list[list[int]] = []
    for start in range(0, len(smiles), chunk):
        fingerprints = morgan_fingerprints(smiles[start : start + chunk])
        distances: list[float] = []
        for i in range(1, len(fingerprints)):
            distances += [1 - s for s in DataStructs.BulkTanimotoSimilarity(fingerprints[i], fingerprints[:i])]
        found = ClusterData(distances, len(fingerprints), threshold, isDistData=True, reordering=True)
        clusters += [[start + i for i in cluster] for cluster in found]
    clusters.sort(key=len, reverse=True)
    return [i for cluster in clusters for i in cluster]


class OrderedBatchSampler(BatchSampler):
    """Consecutive batches of a fixed order; their sequence is shuffled each epoch, their members are not.

    The released code reads the order from start to end without shuffling; shuffling whole batches keeps each batch's
    members and spares the optimiser a curriculum of ever rarer molecules.
    """

    def __init__(self, order: Sequence[int], batch_size: int, seed: int = 0, shuffle_batches: bool = True):
        super().__init__(batch_size, seed)
        self.order, self.shuffle_batches = np.asarray(order), shuffle_batches

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def batches(self, epoch: int) -> list[np.ndarray]:
        cut = [self.order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]
        if not self.shuffle_batches:
            return cut
        return [cut[i] for i in self._rng(epoch).permutation(len(cut))]
