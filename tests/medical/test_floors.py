"""The floors: what a histogram sees and what it does not, by construction."""

import numpy as np
import pytest

from counterpoint.medical.floors import floors, pooled_features


def volumes(n, seed):
    """Half of them hold a bright cube; of a second kind of label only its side tells."""
    rng = np.random.default_rng(seed)
    made, bright, left = [], [], []
    for i in range(n):
        v = rng.normal(0, 10, (24, 24, 24))
        side = bool(rng.integers(2))
        here = i % 2 == 0
        v[(slice(2, 8) if side else slice(16, 22)), 8:14, 8:14] += 600 if here else -600
        made.append(v)
        bright.append(float(here))
        left.append(float(side))
    return made, {"bright": bright, "left": left, "unknown": [-1.0] * n}


def test_a_histogram_sees_what_is_bright_and_not_where():
    (train, known), (test, truth) = volumes(60, 0), volumes(60, 1)
    found = floors(train, known, test, truth)
    assert found["histogram"]["bright"] > 0.95
    assert 0.3 < found["histogram"]["left"] < 0.7
    assert found["voxels"]["bright"] > 0.9
    assert "unknown" not in found["voxels"]


def test_blocks_of_any_size_are_pooled():
    v = np.zeros((25, 30, 13))
    v[0, 0, 0] = 1000.0
    found = pooled_features(v)
    assert found.shape == (3 * 12**3,)
    assert found[12**3] == 1.0
    assert found[0] == pytest.approx(1.0 / (2 * 2 * 1), rel=0.6)
