r"""Figures of top lists, one value a user, and of all lists together.

With :math:`h_r` = 1 where place r of a user's list holds one of his test items T, else 0:

.. math::
    Recall@K = \frac{\sum_{r \le K} h_r}{|T|}, \qquad HR@K = \max_{r \le K} h_r, \qquad
    MRR@K = \max_{r \le K} \frac{h_r}{r} \\
    NDCG@K = \frac{\sum_{r \le K} h_r / \log_2(r + 1)}{\sum_{r \le \min(K, |T|)} 1 / \log_2(r + 1)}, \qquad
    MAP@K = \frac{1}{\min(K, |T|)} \sum_{r \le K} h_r \frac{\sum_{s \le r} h_s}{r}

as MMRec and RecBole define them (their MMRec pads the ideal gain and arrives at the same). Beyond accuracy, with
:math:`n_i` training interactions of item i and U users: popularity is the mean :math:`n_i` of what is recommended,
novelty its mean :math:`-\log_2 (\max(n_i, 1) / U)` in bits, coverage the share of the catalogue that is in any list,
and Gini the inequality of how often items are in one (0: all alike).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from counterpoint.common.data.links import Links


def hits_of(lists: Int[np.ndarray, "n k"], relevant: Links) -> Bool[np.ndarray, "n k"]:
    """Which places hold a relevant item.

    >>> hits_of(np.array([[2, 0], [1, -1]]), Links.of([[0], [0]], 3)).tolist()
    [[False, True], [False, False]]
    """
    rows = np.arange(len(lists))[:, None]
    width = max(relevant.shape[1], 1)
    keys = rows * width + lists
    wanted = relevant.queries * width + relevant.keys
    if not len(wanted):
        return np.zeros(lists.shape, dtype=bool)
    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return (wanted[place] == keys) & (lists >= 0)


def accuracy(
    hits: Bool[np.ndarray, "n k"], n_relevant: Int[np.ndarray, n], cuts: Sequence[int]
) -> dict[str, Float[np.ndarray, n]]:
    """Recall, NDCG, HR, MRR and MAP at every cut-off, one value a user; each has a relevant item at least.

    >>> found = accuracy(np.array([[False, True, True]]), np.array([4]), [2, 3])
    >>> [round(float(found[name][0]), 4) for name in ("recall@3", "hr@2", "mrr@2", "map@3")]
    [0.5, 1.0, 0.5, 0.3889]
    """
    if (n_relevant < 1).any():
        raise ValueError("a user without a test item has no recall; leave him out")
    ranks = np.arange(1, hits.shape[1] + 1)
    discount = 1 / np.log2(ranks + 1)
    ideal = np.concatenate([[0.0], discount.cumsum()])
    found: dict[str, np.ndarray] = {}
    precision = hits.cumsum(1) / ranks
    for k in cuts:
        if k > hits.shape[1]:
            raise ValueError(f"lists of {hits.shape[1]} items have no figures at {k}")
        h = hits[:, :k]
        top = np.minimum(n_relevant, k)
        found[f"recall@{k}"] = h.sum(1) / n_relevant
        found[f"ndcg@{k}"] = (h * discount[:k]).sum(1) / ideal[top]
        found[f"hr@{k}"] = h.any(1).astype(float)
        found[f"mrr@{k}"] = (h / ranks[:k]).max(1)
        found[f"map@{k}"] = (h * precision[:, :k]).sum(1) / top
    return found


def beyond_accuracy(
    lists: Int[np.ndarray, "n k"], counts: Int[np.ndarray, items], users: int, k: int
) -> tuple[dict[str, Float[np.ndarray, n]], dict[str, float]]:
    """(popularity and novelty of every user's list, coverage and Gini of all lists) at a cut-off.

    >>> values, whole = beyond_accuracy(np.array([[0, 1], [0, 1]]), np.array([8, 2, 0, 0]), 8, 2)
    >>> values["novelty@2"].tolist(), whole["coverage@2"], round(whole["gini@2"], 3)
    ([1.0, 1.0], 0.5, 0.5)
    """
    top = lists[:, :k]
    there = top >= 0
    n = np.maximum(there.sum(1), 1)
    popularity = np.where(there, counts[top], 0).sum(1) / n
    surprise = -np.log2(np.maximum(counts, 1) / max(users, 1))
    novelty = np.where(there, surprise[top], 0.0).sum(1) / n
    shown = np.sort(np.bincount(top[there], minlength=len(counts)))
    size, total = len(counts), max(int(shown.sum()), 1)
    gini = float(((2 * np.arange(1, size + 1) - size - 1) * shown).sum() / (size * total))
    whole = {f"coverage@{k}": float((shown > 0).mean()), f"gini@{k}": gini}
    return {f"popularity@{k}": popularity, f"novelty@{k}": novelty}, whole


def chance(n_relevant: Int[np.ndarray, n], pool: Int[np.ndarray, n], cuts: Sequence[int]) -> dict[str, float]:
    """What a random order of each user's pool scores: recall K / pool, NDCG and HR in closed form.

    >>> chance(np.array([1]), np.array([100]), [10])["recall@10"]
    0.1
    """
    found = {}
    for k in cuts:
        cut = np.minimum(k, pool)
        gains = np.concatenate([[0.0], (1 / np.log2(np.arange(2, k + 2))).cumsum()])
        found[f"recall@{k}"] = float((cut / pool).mean())
        found[f"ndcg@{k}"] = float((n_relevant / pool * gains[cut] / gains[np.minimum(n_relevant, k)]).mean())
        miss = np.ones(len(pool))
        for r in range(k):  # C(pool - t, k) / C(pool, k)
            miss *= np.clip(pool - n_relevant - r, 0, None) / np.maximum(pool - r, 1)
        found[f"hr@{k}"] = float((1 - miss).mean())
    return found
