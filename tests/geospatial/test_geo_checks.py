"""The figures of the checks of claims: collapsed encoders score at chance, places are told apart, arms exist."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from counterpoint.common.runs.opened import OpenRun
from counterpoint.geospatial import check_scenes
from counterpoint.geospatial.baselines import SensorTowers
from counterpoint.geospatial.check_scenes import by_place, iou_by_place
from counterpoint.geospatial.checks import CHANCE, CHECKS, retrieval_check
from counterpoint.geospatial.checks_dense import gallery_hits, place_hits
from counterpoint.geospatial.checks_wider import LearntPositions, loss_by_place
from counterpoint.geospatial.models.croma import SensorEncoder
from counterpoint.geospatial.models.masking import PatchMask


def opened(s1, s2, groups):
    run = object.__new__(OpenRun)
    object.__setattr__(run, "encoded", lambda: SimpleNamespace(vectors={"s1": s1, "s2": s2}, groups=groups))
    return run


def test_a_collapsed_encoder_retrieves_at_chance_and_a_perfect_one_always():
    groups = [f"p{i // 4}" for i in range(64)]
    same = torch.ones(64, 8)
    assert gallery_hits(opened(same, same, groups)).figure == pytest.approx(float(CHANCE))
    assert place_hits(opened(same, same, groups)).figure == pytest.approx(1 / 4)
    apart = torch.eye(64)
    assert gallery_hits(opened(apart, apart, groups)).figure == place_hits(opened(apart, apart, groups)).figure == 1.0
    moved = apart.roll(1, 0)  # every first in a place of four takes another place's chip for its own
    assert place_hits(opened(apart, moved, groups)).figure < 1.0


def test_chance_is_itself_and_needs_no_scenes():
    assert retrieval_check(None, CHANCE, 0).figure == float(CHANCE)


def test_figures_are_means_over_places():
    found = by_place(np.array([1.0, 0.0, 1.0, 1.0]), ["a", "a", "b", "b"])
    assert found.groups == {"a": 0.5, "b": 1.0}
    assert found.figure == 0.75


def test_shares_of_the_intersection_over_union_have_the_whole_as_mean():
    tables = np.random.default_rng(0).integers(1, 50, (8, 3, 3))
    whole = tables.sum(0).astype(float)
    hit = np.diag(whole)
    truth = (hit / (whole.sum(0) + whole.sum(1) - hit)).mean()
    assert iou_by_place(tables, [f"p{i // 2}" for i in range(8)]).figure == pytest.approx(truth)


def test_arms_are_trained_apart_and_leave_gradients_as_they_were(monkeypatch):
    def leaves_gradients_on(cls, config, seed, steps, out):
        torch.set_grad_enabled(True)
        return object()

    monkeypatch.setattr(check_scenes, "_kept", {})
    monkeypatch.setattr(check_scenes, "known_places", lambda: SimpleNamespace(path="places.parquet"))
    monkeypatch.setattr(check_scenes, "train_quietly", leaves_gradients_on)
    with torch.no_grad():
        first = check_scenes.trained(SensorTowers, 0, {})
        assert not torch.is_grad_enabled()
    assert check_scenes.trained(SensorTowers, 0, {}) is first
    others = [
        check_scenes.trained(SensorTowers, 1, {}),
        check_scenes.trained(SensorTowers, 0, {}, steps=False),
        check_scenes.trained(SensorTowers, 0, {"encoder": {"dim": 32}}),
    ]
    assert len({id(x) for x in [first, *others]}) == 4


@pytest.fixture
def few_small_scenes(monkeypatch):
    scenes = (check_scenes.known_places, check_scenes.unseen_places, check_scenes.winter_places)
    for made in scenes:
        made.cache_clear()
    monkeypatch.setattr(check_scenes, "_kept", {})
    monkeypatch.setattr(check_scenes, "PLACES", 3)
    monkeypatch.setitem(check_scenes.STEPS, "train", {"batch_size": 16, "max_epochs": 5})  # the anchor is of the fourth
    yield
    for made in scenes:
        made.cache_clear()


@pytest.mark.parametrize("name", ["croma-retrieval", "croma-optical", "croma-positions", "mdico-radar", "gram-kept"])
def test_both_arms_of_a_check_run_and_give_every_place_a_share(few_small_scenes, name):
    claim, run = CHECKS[name]
    for arm in (claim.baseline, claim.method):
        found = run(None, arm, 0, groups=8)
        assert np.isfinite(found.figure)
        assert len(found.groups) == 8
        assert np.mean(list(found.groups.values())) == pytest.approx(found.figure)


def test_learnt_positions_are_the_tables_own_and_reach_the_larger_grid():
    encoder = LearntPositions(3, 16, 1, 4, patch_size=4, side=2).eval()
    plain = SensorEncoder(3, 16, 1, 4, 4).eval()
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if k != "table"})
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        encoder.table.zero_()
        blind = encoder(images)
        turned = encoder(images.flip(-1).unflatten(-1, (2, 4)).flip(-1).flatten(-2))  # the columns of patches exchanged
        torch.testing.assert_close(turned, blind.unflatten(1, (2, 2)).flip(2).flatten(1, 2))  # no place is known
        assert not torch.allclose(plain(images), blind, atol=1e-4)  # which distances are
        encoder.table += torch.linspace(-2, 2, 16)[:, None, None]  # the same everywhere, so on every grid
        wide = encoder(images.repeat(1, 1, 2, 2))
        assert wide.shape == (2, 16, 16)
        torch.testing.assert_close(wide.unflatten(1, (4, 4))[:, :2, :2].flatten(1, 2), encoder(images))
        kept = PatchMask(torch.tensor([[3, 0]] * 2), torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4))
        seen = encoder(images, kept)
        encoder.table[:, :8, 0, 1] += 5.0  # hidden by the mask
        torch.testing.assert_close(encoder(images, kept), seen)
        encoder.table[:, :8, 1, 1] += 5.0
        assert not torch.allclose(encoder(images, kept), seen, atol=1e-2)


def test_a_loss_at_twice_the_side_is_the_difference_of_both_figures():
    large, small = np.random.default_rng(1).integers(1, 50, (2, 6, 3, 3))
    places = [f"p{i}" for i in range(6)]
    expected = iou_by_place(small, places).figure - iou_by_place(large, places).figure
    assert loss_by_place(large, small, places).figure == pytest.approx(expected)
    assert loss_by_place(small, small, places).figure == pytest.approx(0.0)
