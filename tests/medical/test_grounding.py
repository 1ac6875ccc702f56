"""Grounding of sentences, calibration and subgroups: maps by hand, the pointing game, known figures, the verb."""

import nibabel
import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.medical.clip_ct import ClipCT
from counterpoint.medical.commands import ground, simulate
from counterpoint.medical.configs import ClipCTConfig, VelvetMedConfig
from counterpoint.medical.evaluation import protocols
from counterpoint.medical.grounding import hires_cam, pointing, score_pointing, similarity_maps
from counterpoint.medical.reliability import calibrate_findings, expected_error, score_subgroups
from counterpoint.medical.velvet_med import VelvetMed
from counterpoint.medical.volume import Volume, to_recipe

TINY = {
    "data.recipe": {"spacing": [14.0, 14.0, 14.0], "size": [24, 24, 24]}, "data.tokens": 96, "data.workers": 1,
    "channels": [4, 6, 8], "dim": 12, "text": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    "train.batch_size": 6, "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounding")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERPOINT_CACHE", str(folder / "cache"))
        made = simulate(folder / "ph", volumes=8, val=12, test=12, size=24, spacing=14.0, workers=1).manifest
        changes = TINY | {"data.manifest": str(made), "train.out": str(folder / "r"), "train.max_steps": 2}
        fit(create_system(ClipCT, override(ClipCTConfig(), changes)))
        yield folder / "r"


def test_the_map_of_a_linear_score_is_its_share_at_every_place():
    """S = sum_p w(p).A(p): the map is w(p).A(p), and sums to S."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(1, 3, 4, 4, 4, generator=g).requires_grad_()
    w = torch.randn(2, 3, 4, 4, 4, generator=g)
    found = hires_cam([a], (w * a).flatten(1).sum(1), (4, 4, 4))
    assert torch.allclose(found, (w * a).sum(1), atol=1e-6)
    assert torch.allclose(found.flatten(1).sum(1), (w * a).flatten(1).sum(1), atol=1e-5)


def test_the_pointing_game_counts_places_within_one_voxel_and_never_air():
    body = torch.zeros(9, 9, 9)
    body[2:7, 2:7, 2:7] = 1
    masks = torch.zeros(3, 9, 9, 9)
    masks[:, 4, 4, 4] = 1
    maps = torch.zeros(3, 9, 9, 9)
    maps[0, 5, 4, 4] = 1  # beside it
    maps[1, 6, 4, 4] = 1  # two voxels off
    maps[2, 0, 0, 0] = 9  # in the air: not pointed at
    maps[2, 4, 4, 4] = 1
    found = pointing(maps, masks, body)
    assert found["hit"] == [1.0, 0.0, 1.0]
    assert found["chance"] == pytest.approx([27 / 125] * 3)
    flat = pointing(torch.zeros(1, 9, 9, 9), masks[:1], body)
    assert flat["hit"] == pytest.approx([27 / 125])  # a map without a maximum scores chance
    rows = {"finding": ["a", "a", "b"], "group": ["p", "q", "q"], **found}
    result = score_pointing(rows, n_boot=20)
    assert result.metrics["a"] == 0.5
    assert result.metrics["mean"] == pytest.approx(2 / 3)
    assert result.chance["mean"] == pytest.approx(27 / 125)


@pytest.mark.parametrize("cls", [ClipCT, VelvetMed])
def test_maps_are_of_the_sentence_and_lie_on_the_volume(run, cls):
    base = load_run(run)
    if cls is ClipCT:
        system = base
    else:
        config = override(VelvetMedConfig(), {
            **TINY, "encoder": "conv", "text": {"width": 16, "heads": 2, "layers": [1, 1, 1], "dropout": 0.0},
            "data.manifest": base.config.data.manifest,
        })  # fmt: skip
        torch.manual_seed(0)
        system = create_system(VelvetMed, config).eval()
    ct = base.datasets().test[0]["ct"]
    texts = ["Left pleural effusion.", "No nodule.", "Left pleural effusion."]
    maps = similarity_maps(system, ct, texts)
    assert maps.shape == (3, *ct.shape)
    assert torch.allclose(maps[0], maps[2], atol=1e-6)
    assert not torch.allclose(maps[0], maps[1], atol=1e-6)
    assert torch.allclose(similarity_maps(system, ct, texts[:1])[0], maps[0], atol=1e-5)
    assert not any(p.grad is not None for p in system.parameters())


def test_the_verb_writes_the_map_where_the_scan_lies(run, tmp_path):
    scan = run.parent / "ph" / "volumes" / "test-00000.nii.gz"
    done = ground(run, scan, "Left pleural effusion.", tmp_path / "map.nii.gz")
    image = nibabel.load(done.files["map"])
    config = load_run(run).config.data.recipe
    source = nibabel.load(scan)
    made = to_recipe(Volume(np.asarray(source.dataobj), source.affine), config)
    assert np.allclose(image.affine, made.affine)
    data = image.get_fdata()
    at = np.unravel_index(data.argmax(), data.shape)
    assert done.figures["strongest"] == pytest.approx((image.affine @ [*at, 1])[:3], abs=0.06)
    with pytest.raises(InputError, match="the text is empty"):
        ground(run, scan, "  ", tmp_path / "map.nii.gz")


def test_evaluate_has_grounding_calibration_and_subgroups(run):
    opened = OpenRun.load(run, split="test")
    opened.n_boot = 10
    found = protocols(opened)
    assert {"zero-shot findings", "zero-shot calibration", "zero-shot subgroups", "phrase grounding"} <= set(found)
    assert 0 <= found["phrase grounding"].metrics["mean"] <= 1
    assert 0 < found["phrase grounding"].chance["mean"] < 1


def test_calibration_is_its_definition_and_the_truth_is_calibrated():
    rng = np.random.default_rng(0)
    s = rng.normal(size=4000)
    y = (rng.random(4000) < 1 / (1 + np.exp(-2 * s + 1))).astype(float)
    found = calibrate_findings({"a": (s[:2000], y[:2000])}, {"a": (s[2000:], y[2000:])}, n_boot=20)
    p = 1 / (1 + np.exp(-2 * s[2000:] + 1))
    assert found.metrics["Brier of a"] == pytest.approx(np.mean((p - y[2000:]) ** 2), abs=0.005)
    assert found.metrics["ECE of a"] < 0.04
    assert found.chance["Brier of a"] > found.metrics["Brier of a"] + 0.05
    assert expected_error(np.full(4, 0.7), np.array([1, 1, 0, 0])) == pytest.approx(0.2)
    alike = calibrate_findings({"a": (s[:5], np.ones(5))}, {"a": (s[:5], np.ones(5))}, n_boot=5)
    assert alike.metrics == {}
    assert "nothing can be fitted" in alike.notes[-1]


def test_subgroups_are_scored_apart_and_small_ones_are_told():
    rng = np.random.default_rng(0)
    y = np.tile([0.0, 1.0], 40)
    s = np.where(np.arange(80) < 40, y, rng.random(80)) + 0.001 * rng.random(80)
    columns = {"kernel": ["sharp"] * 40 + ["soft"] * 36 + ["odd"] * 2 + [None] * 2, "phase": ["one"] * 80}
    found = score_subgroups({"a": (s, y)}, columns, n_boot=20)
    assert set(found.metrics) == {"a, kernel sharp", "a, kernel soft"}
    assert found.metrics["a, kernel sharp"] == 1.0
    assert abs(found.metrics["a, kernel soft"] - 0.5) < 0.25
    assert "1 subgroups have fewer" in found.notes[0]
