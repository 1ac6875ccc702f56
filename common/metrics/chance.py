"""What a random order of the pool would score, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def chance_levels(pool: int | Tensor, n_relevant: Tensor, ks: Sequence[int]) -> dict[str, float]:
    r"""Expected retrieval figures of a random order of the pool, averaged over queries with their own truth sizes (and
    with pools of their own, where `pool` names one for each query).

    With p relevant keys in a pool of n, P(first relevant rank > r) = C(n-r, p) / C(n, p). From it follow R@k, the
    median and mean rank and MRR; :math:`E[AP] = \frac{H_n}{n} + \frac{p-1}{n(n-1)}(n - H_n)`; every place is relevant
    with probability p/n, which gives NDCG and coverage.

    >>> import torch
    >>> {k: round(v, 4) for k, v in chance_levels(500, torch.ones(3, dtype=torch.long), [10]).items()}["R@10"]
    0.02
    """
    n_relevant = n_relevant.cpu().numpy()
    pools = np.broadcast_to(np.asarray(pool if isinstance(pool, int) else pool.cpu()), n_relevant.shape)
    cases, weights = np.unique(np.stack([pools, n_relevant], 1), axis=0, return_counts=True)
    weights = weights / weights.sum()
    most = int(pools.max())
    rank = np.arange(1, most + 1)
    harmonics = (1 / rank).cumsum()
    discount = np.cumsum(1 / np.log2(rank + 1.0))
    names = [f"{m}@{k}" for m in ("R", "NDCG", "coverage") for k in ks] + ["MRR", "mean_rank", "mAP"]
    totals = dict.fromkeys(names, 0.0)
    survive_mix = np.zeros(most + 1)  # P(first relevant rank > r), r = 0..most
    for (n, p), weight in zip(cases.tolist(), weights.tolist()):
        harmonic = harmonics[n - 1]
        survive = np.concatenate([[1.0], np.cumprod((n - p - (rank - 1.0)).clip(0) / (n - rank + 1.0).clip(1))])
        survive_mix += weight * survive
        first = survive[:-1] - survive[1:]
        totals["MRR"] += weight * float((first / rank).sum())
        totals["mean_rank"] += weight * (n + 1) / (p + 1)
        totals["mAP"] += weight * float(harmonic / n + (p - 1) / (n * max(n - 1, 1)) * (n - harmonic))
        for k in ks:
            cut = min(k, n)
            totals[f"R@{k}"] += weight * (1 - float(survive[cut]))
            totals[f"coverage@{k}"] += weight * cut / n
            totals[f"NDCG@{k}"] += weight * float(p / n * discount[cut - 1] / discount[min(p, cut) - 1])
    totals["median_rank"] = _median_rank(survive_mix)
    return totals


def _median_rank(survive: np.ndarray) -> float:
    """Median of the first relevant rank; the middle of the two when a rank has exactly half the mass at or below it."""
    below = 1 - survive
    at = int(np.argmax(below >= 0.5 - 1e-12))
    return at + 0.5 if abs(below[at] - 0.5) < 1e-12 else float(at)
