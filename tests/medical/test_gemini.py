"""GEMINI: official figures of its losses, warping as it should be, folding, stopped gradients, label propagation."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.medical.commands import import_nifti, simulate
from counterpoint.medical.configs import GeminiConfig
from counterpoint.medical.flow import cosine_loss, folding, integrate, local_ncc, ncc_loss, smoothness, warp
from counterpoint.medical.gemini import Gemini, random_affine, semantic_similarity
from counterpoint.medical.scenes import dice, protocols
from counterpoint.medical.unet import UNet

DATA = Path(os.environ.get("COUNTERPOINT_DATA", "/nowhere")) / "medical" / "msd_hippocampus"
TINY = {
    "data.workers": 1, "channels": [8, 8], "deformer": [8, 8], "train.batch_size": 2, "train.precision": "32-true",
    "train.tensorboard": False, "train.accelerator": "cpu", "window": 5,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path_factory.getbasetemp() / "gemini-cache"))


def official():
    """The draws under which the official code's losses were run (YutingHe-list/GEMINI at 4e8e7cc, on a CPU)."""
    torch.manual_seed(0)
    i, j = torch.rand(1, 1, 12, 14, 16), torch.rand(1, 1, 12, 14, 16)
    mask = (torch.rand(1, 1, 12, 14, 16) > 0.2).float()
    f = torch.randn(1, 3, 12, 14, 16)
    a, b = torch.randn(1, 8, 12, 14, 16), torch.randn(1, 8, 12, 14, 16)
    return i, j, mask, f, a, b


def test_losses_equal_the_official_codes_numbers():
    i, j, mask, f, a, b = official()
    assert smoothness(f).item() == pytest.approx(2.0068399906, abs=1e-6)
    assert ncc_loss(i, j).item() == pytest.approx(0.7031460404, abs=1e-5)
    assert ncc_loss(i, j, mask).item() == pytest.approx(0.7018115520, abs=1e-5)
    assert cosine_loss(a, b, mask).item() == pytest.approx(0.9942702055, abs=1e-6)


def test_the_local_correlation_is_one_of_a_volume_with_itself_and_blind_to_scale():
    x = torch.rand(1, 1, 14, 14, 14, generator=torch.Generator().manual_seed(0))
    inner = (slice(None), slice(None), *[slice(4, 10)] * 3)
    assert torch.allclose(local_ncc(x, x, 5)[inner], torch.ones(1), atol=1e-3)
    assert torch.allclose(local_ncc(x, 3 * x + 1, 5)[inner], torch.ones(1), atol=1e-3)


def test_half_precision_moves_nothing_and_bounds_the_correlation():
    """Places of bfloat16 are a quarter of a voxel off, and a window's variance would be a difference of large sums."""
    g = torch.Generator().manual_seed(0)
    x, flow = torch.rand(1, 1, 40, 56, 40, generator=g), torch.randn(1, 3, 40, 56, 40, generator=g)
    low = flow.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp(x, low), warp(x, low.float()))
        found, exact = ncc_loss(x, x.flip(2)), ncc_loss(x.double(), x.double().flip(2))
    assert found.item() == pytest.approx(exact.item(), abs=1e-4)


def test_no_flow_is_the_identity_and_a_whole_step_is_a_shift():
    x = torch.rand(2, 3, 5, 6, 7)
    assert torch.allclose(warp(x, torch.zeros(2, 3, 5, 6, 7)), x, atol=1e-5)
    for axis in range(3):
        flow = torch.zeros(2, 3, 5, 6, 7)
        flow[:, axis] = 1
        moved = warp(x, flow)
        n = x.shape[axis + 2]
        assert torch.allclose(moved.narrow(axis + 2, 0, n - 1), x.narrow(axis + 2, 1, n - 1), atol=1e-5)
        assert moved.narrow(axis + 2, n - 1, 1).abs().max() == 0


def test_folding_is_seen_and_integration_avoids_it():
    places = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))[None]
    assert folding(0.5 * places).item() == 0
    assert folding(-2 * places).item() == 1  # every axis turned about: det = -1
    g = torch.Generator().manual_seed(0)
    rough = torch.nn.functional.interpolate(4 * torch.randn(1, 3, 4, 4, 4, generator=g), size=16, mode="trilinear")
    assert folding(rough).item() > 0.01
    assert folding(integrate(rough, 7)).item() < 0.3 * folding(rough).item()
    assert torch.equal(integrate(rough, 0), rough)
    steady = torch.full((1, 3, 6, 6, 6), 0.75)
    assert torch.allclose(integrate(steady, 6), steady, atol=1e-4)  # a constant velocity is its own flow


def test_stopped_gradients_part_features_from_the_flow():
    g = torch.Generator().manual_seed(0)
    fa, fb = (torch.randn(1, 4, 6, 6, 6, generator=g).requires_grad_() for _ in range(2))
    flow = (0.3 * torch.randn(1, 3, 6, 6, 6, generator=g)).requires_grad_()
    mask = torch.ones(1, 1, 6, 6, 6)
    semantic_similarity(fa, fb, flow, mask).backward()
    by_hand = torch.autograd.grad(0.1 * cosine_loss(warp(fa, flow.detach()), fb, mask), [fa, fb])
    assert torch.allclose(fa.grad, by_hand[0], atol=1e-8)
    assert torch.allclose(fb.grad, by_hand[1], atol=1e-8)
    (of_flow,) = torch.autograd.grad(cosine_loss(warp(fa.detach(), flow), fb.detach(), mask), [flow])
    assert torch.allclose(flow.grad, of_flow, atol=1e-8)


def test_the_affine_turns_a_volume_that_is_no_cube_without_shear():
    """A ball stays a ball: its second moments are the same along all axes."""
    size = (24, 32, 20)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in size], indexing="ij"))
    ball = torch.exp(-(grid.square().sum(0)) / (2 * 3.0**2))[None, None].repeat(4, 1, 1, 1, 1)
    torch.manual_seed(0)
    made = random_affine(ball, 40.0, (0.8, 1.2))
    for one in made:
        weight = one[0] / one.sum()
        spread = torch.stack([(weight * grid[i] ** 2).sum() for i in range(3)]).sqrt()
        assert torch.allclose(spread, spread.mean().expand(3), rtol=0.03)
    assert torch.allclose(random_affine(ball, 0.0, (1.0, 1.0)), ball, atol=1e-5)


def test_dice_of_what_neither_has_is_not_known():
    a = torch.zeros(2, 2, 2, dtype=torch.long)
    assert np.isnan(dice(a, a, 1))
    assert dice(a, a, 0) == 1.0


def test_the_unet_keeps_the_size_of_any_volume():
    assert UNet(2, (8, 8, 16))(torch.zeros(1, 2, 9, 11, 13)).shape == (1, 8, 9, 11, 13)


def test_it_trains_on_phantoms_and_carries_labels(tmp_path):
    made = simulate(tmp_path / "ph", volumes=2, val=2, test=2, size=16, spacing=21.0, workers=1).manifest
    changes = TINY | {
        "data.manifest": str(made), "data.recipe": {"spacing": [21.0] * 3, "size": [16] * 3, "low": -1024.0,
        "high": 1000.0, "outside": -1024.0}, "train.max_steps": 2, "train.out": str(tmp_path / "r"),
    }  # fmt: skip
    result = fit(create_system(Gemini, override(GeminiConfig(), changes)))
    system = load_run(result.run_dir, "last")
    found = protocols(OpenRun.of(system))["label propagation"]
    assert found.metrics["folding"] < 0.01
    assert found.metrics["Dice"] == pytest.approx(found.chance["Dice"], abs=0.05)  # hardly trained: hardly moved
    assert 0.1 < found.chance["Dice"] < 1


def test_one_volume_is_its_own_pair_and_dense_features_are_of_every_voxel(tmp_path):
    made = simulate(tmp_path / "ph", volumes=2, val=2, test=2, size=24, spacing=14.0, workers=1).manifest
    recipe = {"spacing": [14.0] * 3, "size": [24] * 3, "low": -1024.0, "high": 1000.0, "outside": -1024.0}
    config = override(GeminiConfig(), TINY | {"data.manifest": str(made), "data.recipe": recipe})
    system = create_system(Gemini, config).eval()
    batch = {"volume": torch.rand(1, 24, 24, 24)}
    assert all(torch.isfinite(t) for t in system.losses(batch, system.embed(batch)).values())
    assert system.dense_features(batch)["volume"].shape == (1, 24, 24, 24, 8)


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="needs COUNTERPOINT_DATA")
def test_real_hippocampi_come_in_with_their_label_maps(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for file in sorted((DATA / kind).iterdir())[:4]:
            shutil.copy(file, tmp_path / kind)
    report = import_nifti(tmp_path / "images", tmp_path / "out", modality="mr", masks=tmp_path / "labels")
    from counterpoint.common.data import Manifest, split_by_group
    from counterpoint.medical.data import load_ct
    from counterpoint.medical.scenes import Scenes

    table = split_by_group(Manifest.load(report.manifest), {"train": 0.5, "val": 0.25, "test": 0.25})
    table.save(tmp_path / "out" / "split.parquet")
    config = override(GeminiConfig(), GeminiConfig.presets["small"])
    config = override(config, {"data.manifest": str(tmp_path / "out" / "split.parquet"), "data.workers": 1})
    scenes = Scenes(load_ct(config.data), "train", config.data)
    volume, labels = scenes[0]["volume"], scenes.labels(0)
    assert volume.shape == labels.shape == (32, 48, 32)
    assert set(labels.unique().tolist()) == {0, 1, 2}
    assert 0.02 < (labels > 0).float().mean() < 0.3
    assert volume.min() == 0
    assert volume.max() == 1
