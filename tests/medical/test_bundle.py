"""MONAI bundles: the embedding of `embed-scan` by MONAI alone, for files of other axes and grids; refusals in words."""

import json

import nibabel
import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.runs.exports import export
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.medical import bundle as bundles
from counterpoint.medical.clip_ct import ClipCT
from counterpoint.medical.commands import embed_scan, simulate
from counterpoint.medical.configs import ClipCTConfig, GeminiConfig
from counterpoint.medical.gallery import query
from counterpoint.medical.gemini import Gemini
from counterpoint.medical.volume import write_nifti

TRAIN = {
    "data.recipe": {"spacing": [14.0, 14.0, 14.0], "size": [24, 24, 24]}, "data.workers": 1, "train.max_steps": 2,
    "train.batch_size": 4, "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
}  # fmt: skip
CLIP = {"data.tokens": 96, "channels": [4, 6, 8], "dim": 12, "text": {"width": 16, "layers": 1, "heads": 2}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a run of clip-ct, its bundle, the folder of the phantoms)."""
    root = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERPOINT_CACHE", str(root / "cache"))
        manifest = simulate(root / "ct", volumes=8, val=4, test=4, size=24, spacing=14.0, workers=1).manifest
        changes = TRAIN | CLIP | {"data.manifest": str(manifest), "train.out": str(root / "run")}
        fit(create_system(ClipCT, override(ClipCTConfig(), changes)))
        report = export(root / "run", root / "bundle", "monai-bundle", "ct")
        assert report.figures["largest_difference"] < 1e-5
        yield root / "run", root / "bundle", root / "ct"


def own(run, scan):
    return np.array(embed_scan(run, scan).figures["vector"])


def finer(folder, source):
    """The same patient, axes in another order and direction, on a finer grid than the recipe's along two axes."""
    image = nibabel.load(source)
    data = np.asarray(image.dataobj).repeat(2, 0).repeat(3, 2)
    affine = image.affine @ np.diag([0.5, 1.0, 1 / 3, 1.0])
    turn = np.zeros((4, 4))
    turn[2, 0], turn[0, 1], turn[1, 2], turn[3, 3] = 1, 1, 1, 1
    return write_nifti(folder / "finer.nii.gz", data.transpose(2, 0, 1), affine @ turn)


def test_monai_alone_gives_the_embedding_of_embed_scan(made, tmp_path):
    run, bundle, phantoms = made
    scans = sorted((phantoms / "volumes").glob("test*.nii.gz"))[:2]
    scans.append(finer(tmp_path, scans[0]))
    found = [bundles.run_bundle(bundle, scan) for scan in scans]
    for scan, vector in zip(scans, found):
        assert np.abs(vector - own(run, scan)).max() < 1e-4
    assert np.abs(found[0] - found[1]).max() > 1e-3  # they are not all the same


def test_monais_own_run_writes_the_embeddings_of_a_folder(made, tmp_path):
    from monai.bundle.scripts import run as run_monai

    run, bundle, phantoms = made
    config = str(bundle / "configs" / "inference.json")
    folder = phantoms / "volumes"
    one = sorted(folder.glob("test*.nii.gz"))[0]
    options = {"bundle_root": str(bundle), "output_dir": str(tmp_path / "out")}
    run_monai(run_id="run", config_file=config, scan=str(one), **options)
    name = one.name.split(".")[0]
    assert [f.name for f in (tmp_path / "out").iterdir()] == [f"{name}.npy"]
    assert np.abs(np.load(tmp_path / "out" / f"{name}.npy") - own(run, one)).max() < 1e-4


def test_the_bundle_holds_the_recipe_and_says_what_goes_in_and_comes_out(made):
    _, bundle, _ = made
    said = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert said["network_data_format"]["outputs"]["pred"]["num_channels"] == 12
    assert said["network_data_format"]["inputs"]["image"]["spatial_shape"] == [24, 24, 24]
    assert said["counterpoint"]["preprocessing"]["recipe"]["spacing"] == [14.0, 14.0, 14.0]
    network = torch.jit.load(bundle / "models" / "model.ts")
    x = torch.randn(1, 24, 24, 24)
    assert network(x).norm().item() == pytest.approx(1, abs=1e-5)


def test_a_bundle_that_differs_from_the_source_is_not_left_behind(made, tmp_path, monkeypatch):
    run, _, _ = made
    right = bundles.inference
    monkeypatch.setattr(bundles, "inference", lambda *args: right(*args) | {"outside": 0.0})
    system = load_run(run)
    with torch.no_grad(), pytest.raises(InputError, match="differs from the source"):
        bundles.write_bundle(system.eval(), tmp_path / "b", modality="ct")
    assert not (tmp_path / "b").exists()


def test_reports_have_no_bundle_and_a_folder_in_use_stays(made, tmp_path):
    run, bundle, _ = made
    with pytest.raises(InputError, match="no embedding of a volume; there is ct"):
        export(run, tmp_path / "b", "monai-bundle", "report")
    with pytest.raises(InputError, match="there already"):
        export(run, bundle, "monai-bundle", "ct")
    assert (bundle / "models" / "model.ts").exists()


def test_volumes_scaled_by_their_own_range(made, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    _, _, phantoms = made
    changes = TRAIN | {"channels": [8, 8], "deformer": [8, 8], "data.manifest": str(phantoms / "manifest.parquet")}
    changes["data.recipe"] = {"spacing": [14.0] * 3, "size": [16, 24, 20], "low": 0.0, "high": 1e5, "outside": 0.0}
    system = create_system(Gemini, override(GeminiConfig(), changes)).eval()
    with torch.no_grad():
        report = bundles.write_bundle(system, tmp_path / "b", modality="volume")
        assert report.largest_difference < 1e-5
        scan = sorted((phantoms / "volumes").glob("test*.nii.gz"))[0]
        sample = query(scan, "volume", system)
        mine = system.encode({"volume": sample["volume"][None]}, "volume")["volume"][0].numpy()
    assert np.abs(bundles.run_bundle(tmp_path / "b", scan) - mine).max() < 1e-4
