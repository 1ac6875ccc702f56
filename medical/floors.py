"""What finds a finding without learning to look: labels and a histogram, labels and coarse voxels.

Both floors are trained on the labels, which zero-shot never sees. A finding counts as learnt by looking only where
zero-shot lies above both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from counterpoint.common.metrics.classification import auroc

BINS = np.linspace(-1024, 1024, 41)
GRID = 12


def histogram_features(volume: np.ndarray) -> np.ndarray:
    """[40] shares of a volume's voxels in bins of HU; values beyond are in the last ones.

    >>> float(histogram_features(np.full((4, 4, 4), 3000.0))[-1])
    1.0
    """
    return np.histogram(np.clip(volume, BINS[0], BINS[-1]), BINS)[0] / volume.size


def pooled_features(volume: np.ndarray) -> np.ndarray:
    """[3 x 12^3] mean, maximum and minimum of blocks, in 1000 HU: what is where, coarsely."""
    edges = [np.linspace(0, n, GRID + 1).round().astype(int) for n in volume.shape]
    parts = []
    for reduce in (np.add, np.maximum, np.minimum):
        found = volume.astype(np.float64)
        for axis in range(3):
            found = reduce.reduceat(found, edges[axis][:-1], axis)
        parts.append(found)
    counts = np.diff(edges[0])[:, None, None] * np.diff(edges[1])[:, None] * np.diff(edges[2])
    parts[0] = parts[0] / counts
    return np.concatenate([p.reshape(-1) for p in parts]) / 1000


FLOORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"histogram": histogram_features, "voxels": pooled_features}


def floors(
    train: Iterable[np.ndarray],
    train_labels: Mapping[str, Sequence[float | None]],
    test: Iterable[np.ndarray],
    test_labels: Mapping[str, Sequence[float | None]],
) -> dict[str, dict[str, float]]:
    """Floor -> finding -> AUROC on the test volumes of a ridge classifier that was given the labels (standardised
    features; strength chosen by leave-one-out). Labels other than 0 and 1 do not count."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.preprocessing import StandardScaler

    sets = []
    for volumes in (train, test):
        rows = [[features(v) for features in FLOORS.values()] for v in volumes]
        sets.append([np.stack([row[i] for row in rows]) for i in range(len(FLOORS))])
    found: dict[str, dict[str, float]] = {}
    for i, name in enumerate(FLOORS):
        scale = StandardScaler().fit(sets[0][i])
        x, z = scale.transform(sets[0][i]), scale.transform(sets[1][i])
        found[name] = {}
        for finding, labels in train_labels.items():
            y, t = _known(labels), _known(test_labels[finding])
            if len(set(y[y >= 0].tolist())) < 2 or len(set(t[t >= 0].tolist())) < 2:
                continue
            model = RidgeClassifierCV(np.logspace(-1, 5, 7)).fit(x[y >= 0], y[y >= 0])
            found[name][finding] = auroc(model.decision_function(z[t >= 0]), t[t >= 0] == 1)
    return found


def _known(labels: Sequence[float | None]) -> np.ndarray:
    """1, 0, or -1 where a label is missing or uncertain."""
    return np.array([int(v) if v in (0, 1, 0.0, 1.0) else -1 for v in labels])
