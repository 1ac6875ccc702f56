r"""A generator of interactions: users with tastes that drift, a catalogue that grows, popularity that is not taste.

Every item has a category and a place :math:`q_i` near its category's; a user wants some categories, and more of another
one as time goes by: :math:`p_u(t) = p_u + t\, d_u`. In each of eight periods he picks, without picking twice, among the
items that are out by then, with probabilities

.. math:: P(i) \propto \exp(p_u(t) \cdot q_i + b_i)

where the popularity :math:`b_i` is normal and knows nothing of tastes: whoever ranks by popularity alone is right about
many users and knows none. Item features are noisy projections of :math:`q_i` among columns that mean nothing, so that
they help exactly where ids cannot: for items that few have met. Everything made here says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from counterpoint.common.vertical import ImportReport
from counterpoint.recsys.data.build import save_dataset
from counterpoint.recsys.data.features import ItemFeatures
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.log import Interactions

SAID = "interactions, items and their features made by a generator"
CATEGORIES = ("ambient", "blues", "chamber", "drone", "electro", "folk", "gospel", "hip-hop", "indie", "jazz")
PERIODS, DIM = 8, 12
DAY, BEGIN = 86_400.0, 1_577_836_800.0  # 2020-01-01
WIDTHS = {"text": 48, "image": 64}


def simulated_interactions(users: int = 2000, items: int = 1000, seed: int = 0) -> InteractionData:
    """The data in memory, not split yet.

    >>> data = simulated_interactions(60, 50, seed=1)
    >>> len(data.log.users), data.synthetic == SAID, bool((np.diff(data.log.user) >= 0).all())
    (60, True, True)
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(CATEGORIES), DIM))
    category = rng.integers(len(CATEGORIES), size=items)
    q = centres[category] + 0.6 * rng.normal(size=(items, DIM))
    popularity = rng.normal(scale=1.2, size=items)
    released = np.where(rng.random(items) < 0.6, 0.0, rng.uniform(0, PERIODS - 1, size=items))
    wants = rng.dirichlet(np.full(len(CATEGORIES), 0.25), size=users)
    later = rng.dirichlet(np.full(len(CATEGORIES), 0.25), size=users)
    length = np.clip(rng.lognormal(3.0, 0.6, size=users).astype(int), 5, max(items // 3, 5))
    user, item, time = [], [], []
    for start in range(0, users, 1024):
        part = np.arange(start, min(start + 1024, users))
        met = np.zeros((len(part), items), dtype=bool)
        for period in range(PERIODS):
            share = 0.6 * period / (PERIODS - 1)
            p = ((1 - share) * wants[part] + share * later[part]) @ centres
            scores = 0.6 * p @ q.T + popularity - np.log(-np.log(rng.random((len(part), items))))
            scores[met | (released > period)[None]] = -np.inf
            for row, u in enumerate(part):
                n = (length[u] * (period + 1)) // PERIODS - (length[u] * period) // PERIODS
                chosen = np.argsort(-scores[row])[:n]
                chosen = chosen[np.isfinite(scores[row, chosen])]
                met[row, chosen] = True
                user += [u] * len(chosen)
                item += chosen.tolist()
                time += (BEGIN + 45 * DAY * (period + np.sort(rng.random(len(chosen))))).round().tolist()
    u_ids = IdMap([f"u{i:0{len(str(users))}d}" for i in range(users)])
    i_ids = IdMap([f"i{i:0{len(str(items))}d}" for i in range(items)])
    log = Interactions(u_ids, i_ids, np.array(user), np.array(item), np.array(time, dtype=np.float64)).ordered()
    names = [f"{CATEGORIES[c]} {n}" for n, c in enumerate(category)]
    table = pa.table({
        "id": i_ids.names, "title": names, "category": [CATEGORIES[c] for c in category],
        "released": BEGIN + 45 * DAY * released,
    })  # fmt: skip
    features = {name: _kept(_features(q, width, name == "image", rng)) for name, width in WIDTHS.items()}
    return InteractionData(log, pa.table({"id": u_ids.names}), table, features, "", SAID)


def _features(q: np.ndarray, width: int, some_missing: bool, rng: np.random.Generator) -> ItemFeatures:
    """Half of the columns are noisy projections of the items' places, on a raw scale; half mean nothing."""
    useful = width // 2
    signal = q @ rng.normal(size=(DIM, useful)) / DIM**0.5 + 0.7 * rng.normal(size=(len(q), useful))
    values = np.concatenate([signal, rng.normal(size=(len(q), width - useful))], 1)
    values = (20.0 * values + 128.0) if some_missing else values  # one modality as far from 0 as raw audio is
    known = rng.random(len(q)) > 0.05 if some_missing else np.ones(len(q), dtype=bool)
    known[0] = True
    return ItemFeatures(np.where(known[:, None], values, 0).astype(np.float32), known)


class _kept:
    """Features at hand, in the form of a reader."""

    def __init__(self, features: ItemFeatures) -> None:
        self.features = features

    def __call__(self) -> ItemFeatures:
        return self.features


def write_simulated(out: Path, users: int, items: int, seed: int) -> ImportReport:
    """The same as a data set's folder."""
    data = simulated_interactions(users, items, seed)
    features = {name: data.feature(name) for name in data.features}
    path = save_dataset(out, data.log, data.users, data.items, features, {"synthetic": SAID})
    note = f"{len(data.log):,} interactions of {users:,} users with {items:,} items; SYNTHETIC: {SAID}"
    return ImportReport(path, users, note=note)
