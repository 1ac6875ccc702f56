"""The reduced checks: their arms are there, thresholds are themselves, shuffled features are shuffled and no more."""

from pathlib import Path

import numpy as np
import pytest

from counterpoint.recsys import checks
from counterpoint.recsys.data.folder import open_dataset


def test_every_arm_can_be_run_and_thresholds_are_themselves():
    for name, (claim, run) in checks.CHECKS.items():
        arms = (claim.baseline, claim.method)
        if "lastfm" in name:
            assert set(arms) <= checks.LASTFM.keys(), name
        elif "ml100k" in name:
            assert set(arms) <= checks.MASKS.keys(), name
        elif claim.baseline[0] == "0":
            assert run(None, claim.baseline, 0) == float(claim.baseline)
    claims = [claim for claim, _ in checks.CHECKS.values()]
    assert all(claim.data for claim in claims)
    assert [claim.name for claim in claims if not claim.source] == ["bm3-lastfm-fixed"]  # claimed by no paper


@pytest.mark.realdata
def test_shuffled_features_are_the_same_vectors_of_other_items(data_dir):
    source = data_dir / "recsys" / "lfm2k"
    plain, shuffled = (checks._lastfm(source, seed) for seed in (None, 3))
    data = [open_dataset(Path(folder.name, "data", "manifest.parquet")) for folder in (plain, shuffled)]
    assert data[0].log.pair_hash == data[1].log.pair_hash
    for name in ("text", "audio"):
        one, two = (d.feature(name).values for d in data)
        assert not (one == two).all()
        order = [np.lexsort(values.T) for values in (one, two)]
        assert (one[order[0]] == two[order[1]]).all()


@pytest.mark.realdata
def test_arms_give_the_figures_that_the_claims_are_about(data_dir):
    for slice_ in (checks.ALL, checks.RARE):
        run = checks.lastfm(slice_, epochs=1)
        figures = [run(data_dir, arm, 0) for arm in ("LightGCN", "BM3, features fixed")]
        assert all(0 <= figure < 1 for figure in figures)
    assert figures[0] != figures[1]


@pytest.mark.realdata
def test_masks_of_the_films_fields_are_not_one_and_the_same(data_dir):
    figures = {arm: checks.movielens(data_dir, arm, 0, epochs=1) for arm in checks.MASKS}
    assert len(set(figures.values())) == 3, figures
