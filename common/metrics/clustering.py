"""Do clusters of the features match known classes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.metrics.bootstrap import Interval, t_interval
from counterpoint.common.metrics.bounds import metric_bounds
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.labels import LabelsLike, encode_labels
from counterpoint.common.metrics.result import Result, features


@dataclass(frozen=True)
class Clustering(Result):
    """Agreement of clusters with classes: mean and Student's t interval over seeds of the clustering.

    `metrics`: NMI, ARI (0 at chance), accuracy under the best one-to-one matching of clusters and classes (Hungarian),
    and that accuracy on the `old` and the new classes separately when `old` was given. `chance_accuracy` is the matched
    accuracy of clusters of the same sizes that ignore the features.
    """

    method: str
    clusters: int
    n: int
    metrics: dict[str, Interval]
    chance_accuracy: float


@accepts(arrays=["clusters", "codes"])
def hungarian_accuracy(clusters: np.ndarray, codes: np.ndarray) -> tuple[float, np.ndarray]:
    """Best share of samples whose cluster is matched to their class, and which samples those are.

    >>> hungarian_accuracy(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 0]))[0]
    0.75
    """
    from scipy.optimize import linear_sum_assignment

    size = int(max(clusters.max(), codes.max())) + 1
    table = np.zeros((size, size), dtype=np.int64)
    np.add.at(table, (clusters, codes), 1)
    rows, columns = linear_sum_assignment(-table)
    matched = np.empty(size, dtype=np.int64)
    matched[rows] = columns
    right = matched[clusters] == codes
    return float(right.mean()), right


@accepts(matrices=["z"])
def cluster(
    z: Float[Tensor, "n dim"],
    labels: LabelsLike,
    *,
    clusters: int | None = None,
    method: str = "kmeans",
    old: Sequence[object] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    normalize: bool = True,
) -> Clustering:
    """k-means or Gaussian mixture ("gmm", diagonal) of the features, compared with the labels.

    Args:
        clusters: how many; the number of classes when None.
        old: classes known during training; accuracy is then also given for old and new classes, under one matching.

    >>> import torch
    >>> z = torch.eye(3).repeat(5, 1)
    >>> cluster(z, [0, 1, 2] * 5).metrics["NMI"].value
    1.0
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.mixture import GaussianMixture

    (coded,) = encode_labels(labels)
    keep = coded.present
    codes = coded.codes[keep]
    if len(z) != len(keep):
        raise ValueError(f"{len(z)} feature rows but {len(keep)} labels")
    classes = len(np.unique(codes))
    if classes < 2:
        raise ValueError(f"clusters are compared with at least two classes, the labels hold {classes}")
    x = features("z", z, normalize=normalize).double().cpu().numpy()[keep]
    k = classes if clusters is None else clusters
    names = None if old is None else {str(c) for c in old}
    if names is not None and (absent := sorted(names - set(coded.classes))):
        raise ValueError(f"no sample of the old class {absent[0]!r}; there are {', '.join(coded.classes[:10])}")
    known = None if names is None else np.isin(codes, [i for i, c in enumerate(coded.classes) if c in names])
    rows: dict[str, list[float]] = {}
    chance = []
    for seed in seeds:
        if method == "kmeans":
            found = KMeans(k, n_init=10, random_state=seed).fit_predict(x)
        elif method == "gmm":
            found = GaussianMixture(k, covariance_type="diag", random_state=seed, reg_covar=1e-6).fit_predict(x)
        else:
            raise ValueError(f'method must be "kmeans" or "gmm", got {method!r}')
        accuracy, right = hungarian_accuracy(found, codes)
        figures = {
            "NMI": float(normalized_mutual_info_score(codes, found)),
            "ARI": float(adjusted_rand_score(codes, found)),
            "accuracy": accuracy,
        }
        if known is not None:
            parts = {"accuracy_old": right[known], "accuracy_new": right[~known]}
            figures |= {name: float(part.mean()) for name, part in parts.items() if len(part)}
        for name, value in figures.items():
            rows.setdefault(name, []).append(value)
        shuffled = np.random.default_rng(seed).permutation(found)
        chance.append(hungarian_accuracy(shuffled, codes)[0])
    metrics = {name: t_interval(values, bounds=metric_bounds(name)) for name, values in rows.items()}
    return Clustering(method, k, len(x), metrics, float(np.mean(chance)))
