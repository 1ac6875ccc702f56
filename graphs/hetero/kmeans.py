r"""k-means by inner product, as faiss's `Clustering` does it over an `IndexFlatIP`, and each cluster's temperature.

    c(i)  = argmax_k x_i . m_k,   m_k <- mean of the x_i with c(i) = k          (means keep their length)
    phi_k = tau d_k / mean d,     d_k = mean_i sqrt(x_i . m_k) / log(n_k + 5)   (d cut at its 10th and 90th percentile)

faiss's random numbers are drawn as it draws them (Mersenne Twister), so that assignments are equal up to rounding; an
empty cluster is split off a large one by its rule. All rows take part: faiss leaves some out beyond 4000 a cluster
(as MEOW sets it). An inner product below 0 counts as 0 under the root, where the released code gives NaN.

Source: faiss 1.15.1, Clustering.cpp; jianxiangyu/MEOW at 6a072d7, code_meow/module/cluster.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

SPLIT = 1 / 1024
"""By how much the halves of a split cluster differ."""
LARGEST = 2**32 - 1


@dataclass(frozen=True)
class Clusters:
    """One run: the cluster of each row, the clusters' directions (unit length) and temperatures."""

    assigned: Int[Tensor, " rows"]
    centroids: Float[Tensor, "clusters dim"]
    temperatures: Float[Tensor, " clusters"]


@torch.no_grad()
def cluster_runs(x: Float[Tensor, "rows dim"], counts: tuple[int, ...], tau: float) -> list[Clusters]:
    """One run of k-means for each number of clusters; the seed of a run is its place among them.

    >>> [run.centroids.shape[0] for run in cluster_runs(torch.eye(4), (2, 3), 0.4)]
    [2, 3]
    """
    rows = x.detach().float()
    found = []
    for seed, count in enumerate(counts):
        means = inner_product_kmeans(rows, count, seed=seed)
        nearest, assigned = (rows @ means.T).max(1)
        temperatures = cluster_temperatures(nearest, assigned, count, tau)
        found.append(Clusters(assigned, normalize(means, dim=1).to(x.dtype), temperatures.to(x.dtype)))
    return found


def cluster_temperatures(
    nearest: Float[Tensor, " rows"], assigned: Int[Tensor, " rows"], count: int, tau: float
) -> Float[Tensor, " clusters"]:
    """phi of every cluster; `nearest` holds the inner product of each row with its centre. A cluster of one row or none
    takes the largest density. All densities zero (every row opposite to its centre) give tau."""
    roots = nearest.double().clamp(min=0).sqrt()
    sizes = torch.bincount(assigned, minlength=count)
    sums = torch.zeros(count, dtype=torch.float64, device=roots.device).index_add(0, assigned, roots)
    density = sums / sizes.clamp(min=1) / (sizes + 5.0).log()
    several = sizes > 1
    largest = torch.where(several, density, 0.0).max()
    density = torch.where(several, density, largest)
    low, high = torch.quantile(density, torch.tensor([0.1, 0.9], dtype=torch.float64, device=roots.device))
    density = density.clamp(low, high)
    mean = density.mean()
    return tau * density / mean if mean > 0 else torch.full_like(density, tau)


def inner_product_kmeans(
    x: Float[Tensor, "rows dim"], count: int, *, seed: int, iterations: int = 20, restarts: int = 5
) -> Float[Tensor, "clusters dim"]:
    """The centres of the restart whose rows lie nearest, in the sum of inner products of its last assignment."""
    n = len(x)
    if n < count:
        raise ValueError(f"{n} rows cannot make {count} clusters")
    if n == count:
        return x.clone()
    best, most = None, -np.inf
    for restart in range(restarts):
        first = _permutation(n, count, seed + 1 + restart * 15486557)
        means, score = x[torch.from_numpy(first).to(x.device)], 0.0
        for _ in range(iterations):
            nearest, assigned = (x @ means.T).max(1)
            score = float(nearest.double().sum())
            sizes = torch.bincount(assigned, minlength=count)
            means = torch.zeros_like(means).index_add(0, assigned, x) / sizes.clamp(min=1)[:, None]
            if not bool(sizes.all()):
                _split_empty(means, sizes.tolist(), n)
        if best is None or score > most:
            best, most = means, score
    return best


def _permutation(n: int, first: int, seed: int) -> np.ndarray:
    """The first entries of faiss's random permutation of 0..n - 1."""
    draws = _twister(seed).random_raw(first)
    order = np.arange(n)
    for place in range(first):
        other = place + int(draws[place]) % (n - place)
        order[place], order[other] = order[other], order[place]
    return order[:first]


def _twister(seed: int) -> np.random.MT19937:
    twister = np.random.MT19937()
    twister._legacy_seeding(seed % 2**32)  # the seeding of C++'s std::mt19937
    return twister


def _split_empty(means: Tensor, sizes: list[float], n: int) -> None:
    """Give each empty cluster half of another one, drawn by size."""
    twister, count = _twister(1234), len(sizes)
    signs = torch.where(torch.arange(means.shape[1], device=means.device) % 2 == 0, SPLIT, -SPLIT)
    for empty in [k for k, size in enumerate(sizes) if size == 0]:
        donor = 0
        while np.float32(twister.random_raw()) / np.float32(LARGEST) >= (sizes[donor] - 1.0) / (n - count):
            donor = (donor + 1) % count
        means[empty] = means[donor] * (1 + signs)
        means[donor] = means[donor] * (1 - signs)
        sizes[empty] = sizes[donor] / 2
        sizes[donor] -= sizes[empty]
