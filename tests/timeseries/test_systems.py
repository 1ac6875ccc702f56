"""Systems do what their papers say: crops overlap, levels switch off, shared passes change nothing."""

import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.timeseries.comet import LEVELS, Comet, TrialSampler
from counterpoint.timeseries.configs import CometConfig, TS2VecConfig
from counterpoint.timeseries.manifest import WindowDataset
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.ts2vec import TS2Vec, draw_crops

TINY = {
    "encoder": {"dim": 12, "hidden": 8, "depth": 3},
    "data": {"patients": 6, "length": 64},
    "train": {"batch_size": 8, "max_steps": 3, "tensorboard": False, "accelerator": "cpu", "monitor_every": 0},
}


@pytest.fixture(scope="module")
def windows():
    return split_patients(ecg(patients=6, trials=2, windows=4, length=64), {"train": 0.34, "val": 0.33, "test": 0.33})


def batch_of(system, windows, rows=range(8)):
    dataset = WindowDataset(windows)
    return system.draw_views(dataset.collate([dataset[i] for i in rows]))


@pytest.mark.parametrize("seed", range(5))
def test_crops_overlap_and_stay_inside(seed):
    torch.manual_seed(seed)
    for time in (2, 3, 17, 150):
        crops = draw_crops(32, time)
        left, far_left = int(crops["left"]), int(crops["far_left"])
        right, far_right, offset = int(crops["right"]), int(crops["far_right"]), crops["offset"]
        assert 0 <= far_left <= left < right <= far_right <= time
        assert right - left >= 2
        assert (offset + far_left).min() >= 0
        assert (offset + far_right).max() <= time


def test_ts2vec_views_show_the_same_time_steps(windows):
    """With a pointwise encoder the two views must agree on the whole overlap."""
    system = create_system(TS2Vec, override(TS2VecConfig(), TINY), windows).eval()
    system.encoder.blocks_only = lambda h, steps=slice(None): h[:, steps]
    for _ in range(10):
        views = system.embed(batch_of(system, windows))
        torch.testing.assert_close(views["first"], views["second"])


def test_long_windows_are_cropped_in_training_only(windows):
    """A batch keeps its windows whole, so that evaluation and dense labels see every step."""
    system = create_system(TS2Vec, override(TS2VecConfig(), {**TINY, "max_length": 20}), windows)
    for _ in range(20):
        batch = batch_of(system, windows)
        assert batch["x"].shape[1] == 64
        assert system.embed(batch)["first"].shape[1] <= 20
        first = batch["offset"] + batch["far_left"]
        last = batch["offset"] + batch["far_right"]
        assert first.min() >= 0
        assert last.max() <= 64
        assert last.max() - first.min() <= 20


@pytest.mark.parametrize("name", ["TS2Vec", "Comet", "DBPM"])
def test_dense_features_are_the_steps_whose_maximum_is_the_representation(windows, name):
    import counterpoint.timeseries as ts

    cls = getattr(ts, name)
    system = create_system(cls, override(cls.Config(), {**TINY, "train": {"batch_size": 8, "max_epochs": 1}}), windows)
    batch = batch_of(system, windows)
    steps = system.dense_features(batch)["signal"]
    assert steps.shape == (8, 64, 12)
    torch.testing.assert_close(steps.amax(1), system.features(batch)["signal"])


def test_ts2vec_refuses_windows_shorter_than_its_overlap():
    with pytest.raises(InputError, match="windows of 5 samples are shorter"):
        draw_crops(2, 5, temporal_unit=2)


def test_average_is_the_mean_of_the_weights_so_far(windows):
    system = create_system(TS2Vec, override(TS2VecConfig(), TINY), windows)
    seen = []
    for step in range(4):
        with torch.no_grad():
            for p in system.encoder.parameters():
                p.add_(step)
        seen.append([p.clone() for p in system.encoder.parameters()])
        system.average.update()
    for i, p in enumerate(system.average.module.parameters()):
        torch.testing.assert_close(p, torch.stack([s[i] for s in seen]).mean(0))


def test_trial_batches_hold_same_trial_pairs_and_random_ones_do_not():
    trials = np.repeat(np.arange(400), 9)
    sampler = TrialSampler(trials, batch_size=64, seed=1)
    batches = list(sampler)
    assert len({i for b in batches for i in b}) == sum(map(len, batches)) == 56 * 64

    def with_partner(rows):
        _, code, count = np.unique(trials[rows], return_inverse=True, return_counts=True)
        return (count[code] > 1).mean()

    random = np.random.default_rng(0).permutation(len(trials))[:64]
    assert np.mean([with_partner(b) for b in batches]) > 0.9
    assert with_partner(random) < 0.35


def comet(windows, **changes):
    config = override(CometConfig(), {**TINY, **changes})
    return create_system(Comet, config, windows)


def test_comet_shared_trunk_equals_separate_passes(windows):
    """Eight full passes with the same dropout masks give the same views and the same gradients as five."""
    system = comet(windows, encoder={"dim": 12, "hidden": 8, "depth": 3, "dropout": 0.3}).double().train()
    batch = batch_of(system, windows)
    batch["x"] = batch["x"].double()

    def eight_passes():
        views = {}
        for level in system.levels:
            for view in ("1", "2"):
                hidden = system.encoder.project(batch["x"])
                if level in ("patient", "trial"):
                    views[f"{level}_{view}"] = system.encoder.latent(hidden)
                else:
                    views[f"{level}_{view}"] = system._masked(hidden)
        return views

    results = []
    for embed in (lambda: system.embed(batch), eight_passes):
        torch.manual_seed(5)
        views = embed()
        system.zero_grad()
        system.total(system.losses(batch, views)).backward()
        results.append((views, [p.grad.clone() for p in system.encoder.parameters()]))
    assert results[0][0].keys() == results[1][0].keys()
    for name, view in results[0][0].items():
        torch.testing.assert_close(view, results[1][0][name])
    for mine, theirs in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_with_weight_zero_is_not_computed(windows, level):
    system = comet(windows, **{level: 0.0})
    batch = batch_of(system, windows)
    assert set(system.losses(batch, system.embed(batch))) == set(LEVELS) - {level}


def test_comet_configuration_errors(windows):
    with pytest.raises(InputError, match="one above 0"):
        comet(windows, **dict.fromkeys(LEVELS, 0.0))
    with pytest.raises(InputError, match="must be one of separate, shared"):
        comet(windows, views="four")


@pytest.mark.parametrize(("cls", "config"), [(TS2Vec, TS2VecConfig()), (Comet, CometConfig())])
def test_training_runs_comes_back_and_embeds(windows, tmp_path, cls, config):
    config = override(config, {**TINY, "train.out": str(tmp_path / "run")})
    system = create_system(cls, config, windows)
    before = system.embed_windows(windows)
    fit(system)
    after = system.embed_windows(windows)
    assert after.shape == (len(windows), 12)
    assert not torch.allclose(before, after)
    again = load_run(tmp_path / "run", "last")
    torch.testing.assert_close(again.embed_windows(windows), after)
