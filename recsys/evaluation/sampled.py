"""Ranks among a few drawn items: the protocol of older papers, only on request and under its name.

Each held-out item of a user is ranked against items drawn uniformly among those that he never met in any split
(SASRec's original code: 100). Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020, show that
such figures do not even order models as full rankings do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from counterpoint.recsys.evaluation.ranking import CELLS, Scorer


def sampled_figures(
    scorer: Scorer, asked: Any, lists: Any, draws: int, cuts: Sequence[int], seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(rows of the users, HR, NDCG and MRR of each, averaged over his held-out items); equals are halved."""
    rng = np.random.default_rng([seed, draws])
    users, truth = asked.rows[lists.rows], lists.truth
    met = asked.links_of(("train", "val", "test")).of_queries(lists.rows)
    ranks = np.empty(len(truth))
    step = max(1, CELLS // scorer.n_items)
    for start in range(0, len(users), step):
        stop = min(start + step, len(users))
        scores = scorer.scores(torch.from_numpy(users[start:stop].astype(np.int64))).numpy()
        for row in range(start, stop):
            free = np.setdiff1d(np.arange(scorer.n_items), met.of_query(row), assume_unique=True)
            mine = scores[row - start]
            for place in range(truth.starts[row], truth.starts[row + 1]):
                drawn = mine[rng.choice(free, size=min(draws, len(free)), replace=False)]
                own = mine[truth.keys[place]]
                ranks[place] = 1 + (drawn > own).sum() + (drawn == own).sum() / 2
    per_user = {}
    for k in cuts:
        inside = ranks <= k
        for name, values in (("hr", inside), ("ndcg", inside / np.log2(ranks + 1)), ("mrr", inside / ranks)):
            per_user[f"{name}@{k}"] = np.add.reduceat(values.astype(float), truth.starts[:-1]) / truth.counts
    return lists.rows, per_user
