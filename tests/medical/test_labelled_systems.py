"""SepCLR and SupReMix on volumes: batches of both populations, what the codes owe, refusals, runs end to end."""

import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.medical.commands import embed_scan, simulate
from counterpoint.medical.ct_sepclr import CTSepCLR
from counterpoint.medical.ct_sepclr import protocols as separation
from counterpoint.medical.ct_supremix import CTSupReMix
from counterpoint.medical.ct_supremix import protocols as ordered
from counterpoint.medical.labelled_scans import TwoPopulationSampler, volume_view
from counterpoint.medical.separation_configs import CTSepCLRConfig, CTSupReMixConfig, VolumeViewsConfig

TINY = {
    "data.recipe": {"spacing": [14.0, 14.0, 14.0], "size": [24, 24, 24]}, "data.workers": 1, "channels": [4, 6, 8],
    "train.batch_size": 8, "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
    "train.max_steps": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERPOINT_CACHE", str(folder / "cache"))
        yield simulate(folder / "ct", volumes=24, val=8, test=12, size=24, spacing=14.0, workers=1).manifest


@pytest.fixture(autouse=True)
def cache(phantoms, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(phantoms.parents[1] / "cache"))


def small(config, phantoms, **changes):
    return override(config(), TINY | {"data.manifest": str(phantoms)} | changes)


def test_every_batch_holds_both_populations_in_the_splits_proportion():
    target = np.arange(40) % 4 == 0
    sampler = TwoPopulationSampler(target, 8, seed=1)
    epoch = sampler.batches(0)
    assert len(epoch) == 5
    assert all(len(set(batch)) == 8 and target[batch].sum() == 2 for batch in epoch)
    assert sorted(np.concatenate(epoch)) == list(range(40))
    rare = TwoPopulationSampler([True] * 3 + [False] * 97, 10)
    assert [sum(i < 3 for i in batch) for batch in rare] == [2]  # never fewer than two, though 3 % are 0 of 10
    with pytest.raises(ValueError, match="1 samples of the target"):
        TwoPopulationSampler([True] + [False] * 9, 4)


def test_the_healthy_have_no_salient_code_in_the_loss_and_patients_do(phantoms):
    system = create_system(CTSepCLR, small(CTSepCLRConfig, phantoms))
    g = torch.Generator().manual_seed(0)
    z = {k: torch.randn(6, 5, generator=g) for k in ("common", "common_2", "salient", "salient_2")}
    batch = {"value": torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])}
    system.loss.zero = 0.0
    before = system.losses(batch, z)["sepclr"]
    moved = {k: v.clone() for k, v in z.items()}
    moved["salient"][3:] += 5
    assert system.losses(batch, moved)["sepclr"].item() == pytest.approx(before.item(), rel=1e-6)
    moved["salient"][:3] += 5
    assert abs(system.losses(batch, moved)["sepclr"].item() - before.item()) > 0.1
    system.loss.zero = 10.0
    assert system.losses(batch, z)["sepclr"] > before
    assert system.losses({"value": torch.zeros(6)}, z)["sepclr"] == 0  # a validation batch of the healthy alone


def test_views_stay_on_the_scale_of_hu_and_bring_air_in():
    torch.manual_seed(0)
    ct = torch.full((2, 12, 12, 12), 50.0)
    moved = volume_view(ct, VolumeViewsConfig(shift=3, degrees=0.0, scale=(1.0, 1.0), noise=0.0), -1024.0)
    assert torch.isclose(moved, torch.tensor(50.0), atol=1e-2).logical_or(moved == -1024).all()
    assert (moved == -1024).any()
    turned = volume_view(ct, VolumeViewsConfig(shift=0, degrees=10.0, scale=(0.9, 1.1), noise=0.0), -1024.0)
    assert turned.min() >= -1024.01
    assert turned[:, 6, 6, 6].tolist() == pytest.approx([50.0, 50.0], abs=1e-2)


def test_columns_that_are_missing_or_no_population_are_refused(phantoms):
    with pytest.raises(InputError, match="unknown column 'plural_effusion'.*pleural_effusion"):
        create_system(CTSepCLR, small(CTSepCLRConfig, phantoms, target="plural_effusion")).datasets()
    with pytest.raises(InputError, match="have no 0 or 1 in column 'habitus', the first is train-00000"):
        create_system(CTSepCLR, small(CTSepCLRConfig, phantoms, target="habitus")).datasets()
    with pytest.raises(InputError, match="two of each"):
        create_system(CTSepCLR, small(CTSepCLRConfig, phantoms, **{"train.batch_size": 3}))


def run_of(system, config, phantoms, out):
    fit(create_system(system, small(config, phantoms, **{"train.out": str(out)})))
    return out


def test_sepclr_from_files_to_figures(phantoms, tmp_path):
    out = run_of(CTSepCLR, CTSepCLRConfig, phantoms, tmp_path / "run")
    separated = separation(OpenRun.load(out))["separation"]
    for code in ("common", "salient"):
        assert (
            {f"pleural_effusion from {code}", f"phase from {code}"} <= set(separated.metrics) == set(separated.chance)
        )
    scan = sorted((phantoms.parent / "volumes").glob("test*.nii.gz"))[0]
    assert embed_scan(out, scan).figures["dim"] == 64
    system = load_run(out)
    batch = {"ct": torch.randn(2, 24, 24, 24)}
    with torch.no_grad():
        codes = system.eval().encode(batch)
    assert codes["common"].norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_supremix_from_files_to_figures(phantoms, tmp_path):
    out = run_of(CTSupReMix, CTSupReMixConfig, phantoms, tmp_path / "run")
    found = ordered(OpenRun.load(out))["ordered"]
    assert 0 < found.metrics["MAE"] < 0.3
    assert 0 < found.chance["MAE"] < 0.15  # of .95 to 1.25


def test_labels_are_counted_in_units(phantoms):
    """Twice the label in twice the unit is the same loss."""
    g = torch.Generator().manual_seed(0)
    z = {k: torch.randn(6, 8, generator=g) for k in ("ct", "ct_2")}
    value = torch.tensor([1.0, 1.02, 1.05, 1.1, 1.2, 1.21])
    found = []
    for factor in (1.0, 2.0):
        system = create_system(CTSupReMix, small(CTSupReMixConfig, phantoms, unit=0.01 * factor))
        system.loss.generator = torch.Generator().manual_seed(0)
        found.append(system.losses({"value": value * factor}, z)["supremix"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)
