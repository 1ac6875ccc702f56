"""Segmentation transfer: windows and slabs against the whole, grids of the patient, MONAI's metrics, heads."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter, minimum_filter

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, override
from counterpoint.common.trainers.configs import FinetuneConfig, TrainConfig
from counterpoint.common.trainers.finetuning import create_finetune, finetune
from counterpoint.medical.clip_ct import ClipCT
from counterpoint.medical.commands import segment as segment_command
from counterpoint.medical.commands import simulate
from counterpoint.medical.configs import ClipCTConfig, GeminiConfig, RecipeConfig
from counterpoint.medical.gemini import Gemini
from counterpoint.medical.segmentation import coverage, prior_on, score_segmented, segment_volume, shape_prior
from counterpoint.medical.volume import Volume, labels_to_recipe
from counterpoint.medical.volume import write_nifti as write

RECIPE = RecipeConfig(spacing=(2.0, 2.0, 2.0), size=(8, 8, 8), low=-1000.0, high=1000.0, outside=-1000.0)
TINY = {
    "data.recipe": {"spacing": [14.0, 14.0, 14.0], "size": [24, 24, 24]}, "data.tokens": 96, "data.workers": 1,
    "channels": [4, 6, 8], "dim": 12, "text": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    "train.batch_size": 6, "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
}  # fmt: skip


def threshold(x):
    """Three classes by the value alone: below -200, between, above 200."""
    return torch.stack([-200 - x, 0 * x, x - 200], 1)


def smooth(shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, 4, 4, 4, generator=g) * 800
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0].clamp(-1000, 1000).numpy()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL"])
def test_a_whole_volume_in_any_orientation_is_segmented_voxel_by_voxel(codes):
    ras = smooth((20, 12, 26))
    turn = nibabel.orientations.axcodes2ornt(tuple(codes))
    back = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt(("R", "A", "S")), turn)
    data = nibabel.orientations.apply_orientation(ras, back)
    affine = np.diag([2.0, 2.0, 2.0, 1.0]) @ nibabel.orientations.inv_ornt_aff(back, ras.shape)
    found = segment_volume(Volume(data, affine), RECIPE, threshold)
    assert found.shape == data.shape
    expected = np.where(data < -200, 0, np.where(data > 200, 2, 1))
    assert (found == expected).mean() > 0.999  # blended windows of a rule of the voxel alone are that rule


def test_slabs_give_what_the_whole_gives_and_fine_files_their_own_grid():
    volume = Volume(smooth((18, 16, 60)), np.diag([1.5, 1.0, 1.0, 1.0]))
    whole = segment_volume(volume, RECIPE, threshold)
    slabs = segment_volume(volume, RECIPE, threshold, budget=1)
    assert np.array_equal(whole, slabs)
    assert whole.shape == (18, 16, 60)
    truth = np.where(volume.data < -200, 0, np.where(volume.data > 200, 2, 1))
    clear = maximum_filter(truth, 5) == minimum_filter(truth, 5)  # two voxels or more from another class
    assert clear.mean() > 0.1
    assert (whole == truth)[clear].all()


def test_a_volume_smaller_than_a_window_is_filled_up():
    volume = Volume(smooth((5, 6, 4)), np.diag([2.0, 2.0, 2.0, 1.0]))
    found = segment_volume(volume, RECIPE, threshold)
    inner = (slice(1, -1),) * 3
    expected = np.where(volume.data < -200, 0, np.where(volume.data > 200, 2, 1))
    assert (found == expected)[inner].mean() > 0.7  # odd sizes lie half a voxel beside the recipe's


def test_dice_and_distances_are_in_millimetres_of_the_patient():
    truth = np.zeros((20, 20, 20), dtype=int)
    truth[5:11, 5:11, 5:11] = 1
    found = np.roll(truth, 2, axis=2)
    figures = coverage(found, truth, (1.0, 1.0, 3.0), [1, 2])
    assert figures["Dice of label 1"] == pytest.approx(4 / 6)
    assert figures["hausdorff 95 of label 1"] == pytest.approx(6.0)  # two slices of 3 mm
    assert 0 < figures["surface of label 1"] < 6
    assert np.isnan(figures["Dice of label 2"])
    assert np.isnan(figures["surface of label 2"])
    assert figures["Dice"] == figures["Dice of label 1"]
    missed = coverage(0 * truth, truth, (1.0, 1.0, 3.0), [1])
    assert missed["Dice of label 1"] == 0
    assert np.isnan(missed["surface of label 1"])
    result = score_segmented([figures | missed, figures], [], ["a", "b"], n_boot=20)
    assert result.metrics["Dice of label 1"] == pytest.approx(2 / 6)
    assert result.metrics["surface of label 1"] == pytest.approx(figures["surface of label 1"])
    assert any("in 1 volumes" in said for said in result.notes)


def test_the_shape_prior_lies_on_the_volume_as_its_label_map_does():
    labels = np.zeros((10, 12, 14), dtype=np.int16)
    labels[2:6, 3:8, 4:9] = 2
    volume = Volume(labels, np.diag([-2.0, 2.0, -2.0, 1.0]))
    recipe = RecipeConfig(spacing=(2.0, 2.0, 2.0), size=(12, 12, 16), low=0.0, high=10.0, outside=0.0)
    prior = shape_prior([torch.from_numpy(labels_to_recipe(volume, recipe).data)], 3)
    assert np.array_equal(prior_on(volume, prior.numpy(), recipe), labels)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERPOINT_CACHE", str(folder / "cache"))
        made = simulate(folder / "ph", volumes=8, val=3, test=3, size=24, spacing=14.0, workers=1).manifest
        table = Manifest.load(made)
        frame = table.frame.copy()
        frame.loc[frame["id"] == "train-00001", "labels"] = ""
        made = folder / "ph" / "m.parquet"
        replace(table, frame=frame).save(made)
        changes = TINY | {"data.manifest": str(made), "train.out": str(folder / "r"), "train.max_steps": 1}
        fit(create_system(ClipCT, override(ClipCTConfig(), changes)))
        yield folder


def head(folder, name, **changes):
    train = TrainConfig(
        out=str(folder / name), max_steps=3, batch_size=3, tensorboard=False, accelerator="cpu", monitor_every=0
    )
    return FinetuneConfig(run=str(folder / "r"), train=train, task="dense", labels=("labels",), **changes)


@pytest.mark.parametrize("mode", ["frozen", "full"])
def test_heads_of_label_maps_write_maps_in_patient_space(pretrained, tmp_path, mode):
    config = head(pretrained, mode, mode=mode, groups=5)
    train = create_finetune(config).datasets().train
    assert len(train) == 5  # of seven that have a map
    assert "train-00001" not in train.ids
    finetune(config)
    done = segment_command(pretrained / mode, tmp_path / "maps")
    files = sorted((tmp_path / "maps" / "segmentation").iterdir())
    assert [f.name for f in files] == [f"test-0000{i}.nii.gz" for i in range(3)]
    truth = nibabel.load(pretrained / "ph" / "labels" / files[0].name)
    found = nibabel.load(files[0])
    assert found.shape == truth.shape
    assert np.allclose(found.affine, truth.affine)
    written = json.loads((tmp_path / "maps" / "segmentation.json").read_text())
    assert "made by a generator" in written["synthetic"]
    scores = written["segmentation"]
    assert 0 <= scores["metrics"]["Dice"] < scores["chance"]["Dice"] < 1  # three steps: below the shape prior
    assert any("SYNTHETIC" in line for line in done.lines)


def test_what_cannot_be_segmented_is_said(pretrained, tmp_path):
    with pytest.raises(InputError, match="needs a head of label maps"):
        segment_command(pretrained / "r", tmp_path)
    with pytest.raises(InputError, match="--groups 9: only 7 groups"):
        create_finetune(head(pretrained, "x", groups=9)).datasets()
    with pytest.raises(InputError, match="takes the place of --fraction"):
        create_finetune(head(pretrained, "x", groups=2, fraction=0.5))


def test_a_label_map_on_another_grid_or_of_fractions_is_refused_when_read(pretrained, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    table = Manifest.load(pretrained / "ph" / "manifest.parquet")
    bad = pretrained / "ph" / "labels" / "bad.nii.gz"
    recipe = {"spacing": [14.0] * 3, "size": [24] * 3, "low": -1024.0, "high": 1000.0, "outside": -1024.0}
    for data, words in (
        (np.zeros((24, 24, 23)), "grid is not that of the volume"),
        (np.full((24, 24, 24), 0.5), "whole"),
    ):
        data[0, 0, 0] = 1
        write(bad, data, nibabel.load(pretrained / "ph" / "labels" / "train-00000.nii.gz").affine)
        frame = table.frame.assign(labels="labels/bad.nii.gz")
        replace(table, frame=frame).save(pretrained / "ph" / "bad.parquet")
        config = override(GeminiConfig(), {"data.manifest": str(pretrained / "ph" / "bad.parquet"), "data.workers": 1})
        config = override(config, {"data.recipe": recipe, "train.batch_size": 2, "channels": [8], "deformer": [8]})
        with pytest.raises(InputError, match=words):
            create_system(Gemini, config).datasets()
