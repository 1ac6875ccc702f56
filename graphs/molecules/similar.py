"""Batches of similar molecules: Butina clusters of Morgan fingerprints (KCL's hard negatives)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from counterpoint.common.data.samplers import BatchSampler
from counterpoint.graphs.molecules.fingerprints import fingerprints_apart


def butina_order(smiles: Sequence[str], threshold: float = 0.85, chunk: int = 50_000) -> list[int]:
    """All molecules in the order of their clusters, from the largest cluster to the smallest.

    Clusters hold molecules within `threshold` Tanimoto distance of their centre; distances are taken inside chunks of
    the list, as the released code does, which bounds the quadratic memory (one bit per pair).

    >>> butina_order(["CCCCCCO", "c1ccncc1", "CCCCCCCO", "CCCCCCCCO"])[-1]
    1
    """
    clusters: list[np.ndarray] = []
    for start in range(0, len(smiles), chunk):
        fingerprints = fingerprints_apart(smiles[start : start + chunk], bits=1024)
        clusters += [start + found for found in butina_clusters(fingerprints, threshold)]
    clusters.sort(key=len, reverse=True)
    return np.concatenate(clusters).tolist() if clusters else []


def cluster_groups(smiles: Sequence[str], distance: float = 0.6, chunk: int = 20_000) -> list[str]:
    """The Butina cluster of each molecule, the group id of a cluster split: members lie within `distance` (Tanimoto,
    ECFP4 of 1024 bits) of the cluster's centre. Clusters are sought within chunks of the list, so that two molecules of
    different chunks never share one; how much leaks between groups is for `tanimoto.nearest_similarity` to say.

    >>> cluster_groups(["CCCCCCO", "c1ccncc1", "CCCCCCCO"])
    ['cluster 1', 'cluster 2', 'cluster 1']
    """
    names, found = np.empty(len(smiles), dtype=object), 0
    for start in range(0, len(smiles), chunk):
        for cluster in butina_clusters(fingerprints_apart(smiles[start : start + chunk], bits=1024), distance):
            found += 1
            names[start + cluster] = f"cluster {found}"
    return names.tolist()


def butina_clusters(fingerprints: Int[np.ndarray, "n bits"], threshold: float) -> list[Int[np.ndarray, " members"]]:
    """Butina's clusters, centre first: the molecule with most free neighbours takes them all, and so on.

    Of equals the later molecule comes first, so that the clusters are those of RDKit's `ClusterData` with `reordering`.

    Source: Butina, "Unsupervised Data Base Clustering Based on Daylight's Fingerprint and Tanimoto Similarity", 1999.

    >>> [c.tolist() for c in butina_clusters(np.eye(3, dtype=np.int8)[[0, 1, 1, 2, 1]], 0.5)]
    [[4, 1, 2], [3], [0]]
    """
    n, block = len(fingerprints), 512
    bits = torch.from_numpy(fingerprints).float()
    size = bits.sum(1).double()
    near = np.empty((n, -(-n // 8)), dtype=np.uint8)  # one bit a pair
    for start in range(0, n, block):
        shared = (bits[start : start + block] @ bits.T).double()  # integers, exact
        union = (size[start : start + block, None] + size - shared).clamp_min(1)
        near[start : start + block] = np.packbits((1 - shared / union <= threshold).numpy(), axis=1)
    free_neighbours = _bit_counts(near, range(n))
    free, clusters = np.ones(n, dtype=bool), []
    while free.any():
        candidates = np.where(free, free_neighbours, -1)
        centre = n - 1 - int(candidates[::-1].argmax())
        members = np.flatnonzero(np.unpackbits(near[centre], count=n) & free)
        members = np.concatenate([[centre], members[members != centre]])
        free[members] = False
        free_neighbours -= _bit_counts(near, members)  # the relation is symmetric: rows serve as columns
        clusters.append(members)
    return clusters


def _bit_counts(packed: np.ndarray, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """How often each bit is set in `rows`, which are unpacked a few at a time."""
    n, total = len(packed), np.zeros(len(packed), dtype=np.int64)
    rows = np.asarray(rows)
    for start in range(0, len(rows), 128):
        total += np.unpackbits(packed[rows[start : start + 128]], axis=1, count=n).sum(0, dtype=np.int64)
    return total


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
